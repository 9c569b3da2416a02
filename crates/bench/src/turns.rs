//! Subject and limits take turns round by round, so that the machine's other load meets all alike.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use crate::{Result, cpu, figures::Sample, print_status};

/// Steal of each round of this run, as a share of all processors' time.
static STEAL: Mutex<Vec<f64>> = Mutex::new(Vec::new());

/// Measures every party in `rounds` rounds after one warm-up round. Every other round runs in
/// reverse order (ABBA), so that no party always follows the same neighbour. Returns each party's
/// results.
pub(crate) async fn take_turns<T>(
    title: &str,
    rounds: u32,
    parties: &[&str],
    show: impl Fn(&T) -> String,
    mut measure: impl AsyncFnMut(usize) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut results: Vec<Vec<T>> = parties.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..parties.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for party in order {
            let name = parties[party];
            let before = cpu::steal();
            let with_name = |error: &dyn Display| format!("{title}, {name}: {error}");
            let result = measure(party).await.map_err(|error| with_name(&error))?;
            note_steal(before);
            let figures = show(&result);
            if round == 0 {
                print_status(format_args!("{title}: warm-up, {name}: {figures}"));
            } else {
                print_status(format_args!("{title}: round {round} of {rounds}, {name}: {figures}"));
                results[party].push(result);
            }
        }
    }
    Ok(results)
}

/// A line about a sample.
pub(crate) fn show_sample(sample: &Sample) -> String {
    let Sample { rate, cost_us, .. } = sample;
    let ms = |figure: Option<f64>| figure.map_or("–".into(), |ms| format!("{ms:.2} ms"));
    let (p50, p99) = (ms(sample.p50_ms()), ms(sample.p99_ms()));
    format!("{rate:.0}/s, {cost_us:.2} µs, p50 {p50}, p99 {p99}")
}

fn note_steal(before: Option<(f64, f64)>) {
    if let Some(((all, stolen), (all_now, stolen_now))) = before.zip(cpu::steal())
        && all_now > all
    {
        let mut rounds = STEAL.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.push((stolen_now - stolen) / (all_now - all));
    }
}

/// A sentence about the steal of all rounds so far; `None` if there was no round.
pub(crate) fn describe_steal() -> Option<String> {
    let rounds = STEAL.lock().unwrap_or_else(PoisonError::into_inner);
    let most = rounds.iter().copied().reduce(f64::max)?;
    let above = rounds.iter().filter(|share| **share > 0.01).count();
    Some(format!(
        "The hypervisor took more than 1 % of the processors' time in {above} of {} rounds, at most {:.1} %.",
        rounds.len(),
        most * 100.0
    ))
}

/// Half of the slowest party's rate, to two digits: every party should keep up with that.
pub(crate) fn half_of_the_slowest(parties: &[Vec<Sample>]) -> Result<u32> {
    let rates = parties.iter().filter_map(|samples| crate::figures::rates(samples));
    let slowest = rates.map(|rate| rate.median).reduce(f64::min);
    let half = slowest.ok_or("no round was measured")? / 2.0;
    let digit = 10f64.powf((half.max(1.0).log10().floor() - 1.0).max(0.0));
    Ok(((half / digit).floor() * digit).max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_loop_has_half_of_what_the_slowest_did() {
        let sample = |rate: &f64| Sample { rate: *rate, ..Sample::default() };
        let party = |rates: &[f64]| rates.iter().map(sample).collect();
        let closed = [party(&[41_000.0, 40_000.0, 50_000.0]), party(&[24_900.0])];
        assert_eq!(half_of_the_slowest(&closed).ok(), Some(12_000));
        assert_eq!(half_of_the_slowest(&[party(&[0.4])]).ok(), Some(1));
        assert!(half_of_the_slowest(&[]).is_err());
    }

    #[tokio::test]
    async fn parties_take_turns_in_both_orders_after_a_warm_up() {
        let mut order = Vec::new();
        let results = take_turns(
            "x",
            2,
            &["a", "b"],
            |_| String::new(),
            async |party| {
                order.push(party);
                Ok(order.len())
            },
        );
        assert_eq!(results.await.expect("results"), [[4, 5], [3, 6]]);
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
    }
}
