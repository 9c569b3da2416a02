//! The cost of stored notifications at several sizes: to rebuild, to keep in memory, and to read.

use std::time::Duration;

use crate::{
    Result,
    figures::{Sample, Spread, median},
    fill::{FilledTopic, TopicSize},
    http::get_request,
    load::{LoadProfile, send_load},
    loops::alternate,
    process::settled_memory_bytes,
    records::generated_user,
    report::Section,
    testbed::Testbed,
};

use super::costs::{Cost, Dimension};

/// Inboxes that are read.
const READ_INBOXES: u64 = 64;
const CONNECTIONS: usize = 16;
/// The default bound of an inbox, in entries.
const MAX_ENTRIES: u64 = 1000;

/// One start of a consumer.
#[derive(Debug)]
struct ConsumerStart {
    seconds: f64,
    memory_bytes: f64,
    /// Reads from the full topic's consumer only.
    reads: Option<Sample>,
}

/// Medians over all starts at one size.
#[derive(Debug)]
struct StoredCosts {
    size: TopicSize,
    empty_start_s: f64,
    /// `None` if it cannot be told from the spread of the starts.
    rebuild_s: Option<f64>,
    memory_bytes: f64,
    read_p50_ms: Option<f64>,
    read_cpu_us: Option<f64>,
}

/// Measures at every size.
pub(super) async fn measure(
    testbed: &mut Testbed,
    dimension: Dimension,
    topics: &[TopicSize],
) -> Result<Section> {
    let mut all = Vec::new();
    for (size, topic) in dimension.sizes.iter().zip(topics) {
        let title = format!("{} {size}", dimension.name);
        all.push(measure_at_size(testbed, &title, *topic).await?);
    }
    let cost = |name, figure: fn(&StoredCosts) -> Option<f64>| {
        Cost::new(name, all.iter().map(figure).collect())
    };
    let judged = [
        cost("rebuild, µs a record", |at| Some(at.rebuild_s? * 1e6 / at.size.records as f64)),
        cost("memory, bytes a notification", |at| {
            let kept = at.size.records.min(at.size.users * MAX_ENTRIES);
            Some(at.memory_bytes / kept as f64)
        }),
        cost("processor time of a read, µs", |at| at.read_cpu_us),
    ];
    let beside = [
        cost("rebuild, s", |at| at.rebuild_s),
        cost("records/s", |at| Some(at.size.records as f64 / at.rebuild_s?)),
        cost("start on an empty topic, s", |at| Some(at.empty_start_s)),
        cost("a read's p50, ms", |at| at.read_p50_ms),
    ];
    let note = format!(
        "Medians. A rebuild is a start less one on an empty topic, and is left out where the starts differ \
         by more; memory is what the process has beyond one on an empty topic, by notifications that are \
         kept: {MAX_ENTRIES} for each user. A read asks for the newest entry, over {CONNECTIONS} connections."
    );
    Ok(dimension.into_section(&judged, &beside, Some(note)))
}

async fn measure_at_size(
    testbed: &mut Testbed,
    title: &str,
    size: TopicSize,
) -> Result<StoredCosts> {
    let filled = FilledTopic::create(testbed, size).await?;
    let inboxes = READ_INBOXES.min(size.users);
    let request = |index| {
        let user = generated_user(index * size.users / inboxes)?;
        Ok(get_request(&format!("/notifications/{}?limit=1", user.id)))
    };
    let requests = (0..inboxes).map(request).collect::<Result<Vec<_>>>()?;
    let round = Duration::from_secs(if testbed.options.quick { 1 } else { 3 });
    let profile = LoadProfile::closed(CONNECTIONS, round);
    let show = |start: &ConsumerStart| {
        format!("{:.2} s, {:.1} MiB", start.seconds, start.memory_bytes / 1_048_576.0)
    };
    let (rounds, parties) = (testbed.options.rounds_per_size(), ["full topic", "empty topic"]);
    let starts = alternate(title, rounds, &parties, show, async |party| {
        let (topic, records) = filled.select(party == 0);
        let (consumer, curve) = testbed.start_consumer(topic, records).await?;
        let seconds = curve.duration().as_secs_f64();
        let memory_bytes = settled_memory_bytes(consumer.pid()).await?;
        let mut reads = None;
        if party == 0 {
            reads = Some(send_load(&consumer, &requests, &profile).await?);
        }
        Ok(ConsumerStart { seconds, memory_bytes, reads })
    });
    let starts = starts.await?;
    testbed.delete_topic(&filled.full).await?;
    testbed.delete_topic(&filled.empty).await?;

    let spread = |party: usize, figure: fn(&ConsumerStart) -> f64| {
        Spread::new(starts[party].iter().map(figure)).ok_or("no round was measured")
    };
    let (full, empty) = (spread(0, |start| start.seconds)?, spread(1, |start| start.seconds)?);
    let rebuild = full.median - empty.median;
    let reads: Vec<_> = starts[0].iter().filter_map(|start| start.reads.clone()).collect();
    let memory = |party| Result::Ok(spread(party, |start| start.memory_bytes)?.median);
    Ok(StoredCosts {
        size,
        empty_start_s: empty.median,
        rebuild_s: (rebuild > empty.max - empty.min).then_some(rebuild),
        memory_bytes: memory(0)? - memory(1)?,
        read_p50_ms: median(&reads, |sample| sample.p50_ms),
        read_cpu_us: median(&reads, |sample| sample.cpu_us),
    })
}
