//! Taking turns: subject and limits are measured one after the other, round after round, so that
//! whatever else this machine does meets all of them alike.

use std::fmt::Display;

use crate::{Result, say};

/// Measures every party in `rounds` rounds after one that only warms up. Every other round goes
/// the other way round, so that nobody always comes after the same neighbour. Returns each
/// party's samples.
pub(crate) async fn alternate<T>(
    what: &str,
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
            let named = |error: &dyn Display| format!("{what}, {name}: {error}");
            let sample = measure(party).await.map_err(|error| named(&error))?;
            let figures = show(&sample);
            if round == 0 {
                say(format_args!("{what}: warm-up, {name}: {figures}"));
            } else {
                say(format_args!("{what}: round {round} of {rounds}, {name}: {figures}"));
                samples[party].push(sample);
            }
        }
    }
    Ok(samples)
}
