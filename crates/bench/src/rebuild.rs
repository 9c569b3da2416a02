//! `bench rebuild`: how fast a starting consumer folds a topic, beside rdkafka reading the same
//! topic and dropping it.

use std::time::Duration;

use crate::{
    Result,
    chart::{Axis, Chart, Scale, Series},
    figures::{Aim, Party, Ratio, Sample, Spread},
    fill::Filled,
    progress::Progress,
    report::Section,
    rounds::alternate,
    site::Site,
};

const CONSUMER: &str = "consumer";
const DROPPING: &str = "rdkafka reading and dropping";

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, filled: &Filled) -> Result<Section> {
    let parties = ["consumer on the full topic", "consumer on the empty topic", DROPPING];
    let show = |progress: &Progress| format!("{:.3} s", progress.took().as_secs_f64());
    let rounds = site.options.rounds();
    let progress = alternate("rebuild", rounds, &parties, show, async |party| match party {
        0 => site.consumer(&filled.full)?.live(filled.records).await,
        1 => site.consumer(&filled.empty)?.live(0).await,
        _ => {
            let (kafka, topic, records) = (site.kafka.clone(), filled.full.clone(), filled.records);
            tokio::task::spawn_blocking(move || kafka.read(&topic, records)).await?
        }
    });
    let progress = progress.await?;
    let times: Vec<Vec<Duration>> =
        progress.iter().map(|rounds| rounds.iter().map(Progress::took).collect()).collect();

    // The median, because the start's own spread would otherwise go into every round twice.
    let starts =
        Spread::of(times[1].iter().map(Duration::as_secs_f64)).ok_or("no round was measured")?;
    let start = Duration::from_secs_f64(starts.median);
    #[allow(clippy::cast_precision_loss)] // far below 2⁵²
    let rate =
        |took: Duration| Sample::of(filled.records as f64 / took.as_secs_f64(), filled.records);
    let mut folding = Vec::new();
    let mut start_share: f64 = 0.0;
    for took in &times[0] {
        let folded = took.checked_sub(start).filter(|folded| *folded > starts_spread(&starts));
        let folded =
            folded.ok_or("the rebuild cannot be told from the start; try more --records")?;
        start_share = start_share.max(starts_spread(&starts).as_secs_f64() / folded.as_secs_f64());
        folding.push(rate(folded));
    }
    let dropping: Vec<_> = times[2].iter().map(|took| rate(*took)).collect();

    let nothing = "no round was measured";
    let subject = Party::new(CONSUMER, "subject", &folding).ok_or(nothing)?;
    let limit = Party::new(DROPPING, "limit", &dropping).ok_or(nothing)?;
    let name = format!("{CONSUMER} / {DROPPING}");
    let ratios =
        Ratio::new(&name, &subject, &limit, Some(Aim::AtLeast(0.60))).into_iter().collect();
    Ok(Section {
        name: "rebuild",
        title: format!(
            "a consumer's start on {} records of {} bytes for {} users",
            filled.records, filled.bytes, filled.users
        ),
        unit: "records/s",
        parties: vec![subject, limit],
        ratios,
        notes: vec![
            format!(
                "The consumer's time runs from the start of its process until every partition is live, less the \
                 same on an empty topic: {:.2} s ({:.2}–{:.2}). That start's spread is at most {:.0} % of what is \
                 left; more --records make it less.",
                starts.median,
                starts.min,
                starts.max,
                start_share * 100.0
            ),
            "The limit's time runs from the assignment to the last record, on a client that is already connected."
                .into(),
        ],
        charts: vec![over_time(&[(CONSUMER, &progress[0]), (DROPPING, &progress[2])])],
        ..Section::default()
    })
}

/// Records over seconds: of each party the round that took the median time.
fn over_time(parties: &[(&str, &[Progress])]) -> Chart {
    let series = parties.iter().map(|(name, rounds)| {
        let mut rounds: Vec<_> = rounds.iter().collect();
        rounds.sort_by_key(|round| round.took());
        let points = rounds.get(rounds.len() / 2).map(|round| round.curve()).unwrap_or_default();
        Series { name: (*name).to_owned(), points }
    });
    Chart {
        name: "rebuild-over-time".into(),
        title: "Rebuild: records read over time".into(),
        x: Axis {
            title: "seconds from the start of the process, or of reading".into(),
            scale: Scale::Linear,
        },
        y: Axis { title: "records".into(), scale: Scale::Linear },
        series: series.collect(),
    }
}

fn starts_spread(starts: &Spread) -> Duration {
    Duration::from_secs_f64(starts.max - starts.min)
}
