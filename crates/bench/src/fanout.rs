//! `bench fanout`: many who listen, each to an inbox of their own: what an idle one costs, and how
//! late the last of them hears of a notification when all are sent one at once.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    kafka::Kafka,
    listeners::{Listener, message},
    records,
    report::Section,
    rounds::alternate,
    site::Site,
};

/// Connections that are opened at a time.
const OPENING: usize = 64;
/// How long everything may take to come to rest before memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// How late the last may be before it counts as lost.
const LOST: Duration = Duration::from_secs(30);

/// How many listen.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct FanoutArgs {
    /// Streams that are open at a time [default: 10000; quick: 2000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: Option<u32>,
}

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &FanoutArgs) -> Result<Section> {
    let count = args.subscribers.unwrap_or(if site.options.quick { 2000 } else { 10_000 });
    let count = usize::try_from(count)?;
    // Each is an open file, here and there.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let topic = site.topic("fanout").await?;
    let mut consumer = site.consumer(&topic)?;
    consumer.live(0).await?;
    let mut idle = Vec::new();
    let show = |sample: &Sample| format!("the last of {count} was {:.0} ms late", sample.value);
    let parties = ["all listen"];
    let rounds = site.options.rounds();
    let lateness = alternate("fanout", rounds, &parties, show, async |_| {
        sleep(SETTLE).await;
        let before = consumer.memory()?;
        let (kafka, topic, address) = (site.kafka.clone(), topic.clone(), consumer.address);
        let (opened, is_open) = tokio::sync::oneshot::channel();
        let (measured, go_on) = tokio::sync::oneshot::channel();
        let round = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(all_listen(&kafka, &topic, address, count, opened, go_on))
        });
        if is_open.await.is_ok() {
            sleep(SETTLE).await;
            #[allow(clippy::cast_precision_loss)] // far below 2⁵²
            let each = (consumer.memory()? as f64 - before as f64) / count as f64;
            idle.push(Sample::of(each, u64::try_from(count)?));
            let _ = measured.send(());
        }
        round.await?
    });
    let lateness = lateness.await?;

    let nothing = "no round was measured";
    // The first round warms up, and what it made the allocator keep would flatter the others.
    let idle =
        Party::new("memory of an idle stream, in bytes", "subject", &idle[..1]).ok_or(nothing)?;
    let one = |name: &str, value| Party::new(name, "limit", &[Sample::of(value, 1)]).ok_or(nothing);
    let (budget, second) = (one("8 KiB", 8192.0)?, vec![Sample::of(1000.0, 1); lateness[0].len()]);
    let second = Party::new("a second, in ms", "limit", &second).ok_or(nothing)?;
    let last =
        Party::new("the last event's lateness, in ms", "subject", &lateness[0]).ok_or(nothing)?;
    let ratios = [
        Ratio::new("an idle stream / 8 KiB", &idle, &budget, Some(Aim::AtMost(1.0))),
        Ratio::new("the last event / 1 s", &last, &second, Some(Aim::AtMost(1.0))),
    ];
    Ok(Section {
        name: "fanout",
        title: format!("{count} streams of as many inboxes, one notification each, all at once"),
        unit: "as named",
        parties: vec![idle, last, budget, second],
        ratios: ratios.into_iter().flatten().collect(),
        notes: vec![
            "An idle stream is measured in the first round, on a consumer that had none before: what the process \
             grows by, the connection's own buffers included, the kernel's not."
                .into(),
            "Late is from when the record was handed to rdkafka until its event was read; all records are \
             handed over in one burst, and whoever listens shares the processors."
                .into(),
        ],
    })
}

async fn all_listen(
    kafka: &Kafka,
    topic: &str,
    address: SocketAddr,
    count: usize,
    opened: tokio::sync::oneshot::Sender<()>,
    go_on: tokio::sync::oneshot::Receiver<()>,
) -> Result<Sample> {
    let users =
        (0..count).map(|index| records::somebody(index as u64)).collect::<Result<Vec<_>>>()?;
    let listeners: Vec<Listener> = stream::iter(users.iter().map(|user| user.id.get()))
        .map(|id| Listener::open(address, id))
        .buffered(OPENING)
        .try_collect()
        .await?;
    let _ = opened.send(());
    go_on.await?;
    let append = kafka.appender(topic)?;
    let records = users
        .iter()
        .enumerate()
        .map(|(number, user)| records::notification(user, &message(number)))
        .collect::<Result<Vec<_>>>()?;
    let sending = async {
        let (mut times, mut deliveries) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for record in &records {
            times.push(Instant::now());
            deliveries.push(Kafka::append(&append, topic, record)?);
        }
        for delivery in deliveries {
            if !matches!(delivery.await, Ok(Ok(_))) {
                return Err("a record was not acknowledged".into());
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
    };
    let hearing = async {
        let mut heard: stream::FuturesUnordered<_> = listeners
            .into_iter()
            .map(|mut listener| async move {
                listener.next().await.map(|number| (number, Instant::now()))
            })
            .collect();
        let mut seen = Vec::with_capacity(count);
        while let Some(event) = heard.next().await {
            seen.push(event?);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(seen)
    };
    let both = timeout(LOST, async { tokio::try_join!(sending, hearing) });
    let (times, seen) = both.await.map_err(|_| "not everybody heard of their notification")??;
    let late = |(number, at): &(usize, Instant)| times.get(*number).map(|sent| *at - *sent);
    let last = seen.iter().filter_map(late).max().ok_or("nobody heard anything")?;
    Ok(Sample::of(last.as_secs_f64() * 1000.0, u64::try_from(count)?))
}
