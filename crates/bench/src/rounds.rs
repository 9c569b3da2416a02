//! Alternates subject and limits round by round, so that the machine's other load meets all alike.

use std::fmt::Display;

use crate::{Result, print_status};

/// Measures every party in `rounds` rounds after one warm-up round. Every other round runs in
/// reverse order, so that no party always follows the same neighbour. Returns each party's samples.
pub(crate) async fn alternate<T>(
    title: &str,
    rounds: u32,
    parties: &[&str],
    show: impl Fn(&T) -> String,
    mut measure: impl AsyncFnMut(usize) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut samples: Vec<Vec<T>> = parties.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..parties.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for party in order {
            let name = parties[party];
            let with_name = |error: &dyn Display| format!("{title}, {name}: {error}");
            let sample = measure(party).await.map_err(|error| with_name(&error))?;
            let figures = show(&sample);
            if round == 0 {
                print_status(format_args!("{title}: warm-up, {name}: {figures}"));
            } else {
                print_status(format_args!("{title}: round {round} of {rounds}, {name}: {figures}"));
                samples[party].push(sample);
            }
        }
    }
    Ok(samples)
}
