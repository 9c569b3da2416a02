//! `bench fanout`: many streams of as many inboxes: the memory of an idle one, and how late the
//! last one receives its notification when all are sent in one burst.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use crate::{
    Result,
    figures::{Aim, Party, Ratio},
    http::{EventStream, numbered_message},
    kafka::PARTITIONS,
    kafka::{BareKafka, BenchTopic},
    load::run_on_thread,
    loops::alternate,
    process::{ServerProcess, settled_memory_bytes},
    records::{encode_notification, generated_user},
    report::Section,
    testbed::Testbed,
};

/// Streams that are opened at a time.
const OPENING: usize = 64;
/// An event later than this counts as lost.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of streams.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct FanoutArgs {
    /// Streams that are open at a time [default: 10000; quick: 2000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: Option<u32>,
}

pub(crate) async fn measure(testbed: &mut Testbed, args: &FanoutArgs) -> Result<Section> {
    let count = args.subscribers.unwrap_or(if testbed.options.quick { 2000 } else { 10_000 });
    let topic = testbed.create_topic("fanout", PARTITIONS).await?;
    let (consumer, _) = testbed.start_consumer(&topic, 0).await?;
    let mut stream_bytes = None;
    let show = |lateness_ms: &f64| format!("the last of {count} was {lateness_ms:.0} ms late");
    let rounds = testbed.options.rounds();
    let lateness = alternate("fanout", rounds, &["all listen"], show, async |_| {
        let burst = measure_burst(&testbed.kafka, &topic, &consumer, count).await?;
        // The first round's figure: later streams reuse memory that the allocator kept.
        stream_bytes.get_or_insert(burst.stream_bytes);
        Ok(burst.lateness_ms)
    });
    let lateness = lateness.await?.concat();

    let streams = u64::from(count);
    let idle =
        Party::from_values("memory of an idle stream, in bytes", "subject", stream_bytes, streams)?;
    let budget = Party::from_values("8 KiB", "limit", [8192.0], 1)?;
    let second = lateness.iter().map(|_| 1000.0);
    let second = Party::from_values("a second, in ms", "limit", second, 1)?;
    let last =
        Party::from_values("the last event's lateness, in ms", "subject", lateness, streams)?;
    let aim = Some(Aim::AtMost(1.0));
    let ratios = vec![
        Ratio::new("an idle stream / 8 KiB", &idle, &budget, aim)?,
        Ratio::new("the last event / 1 s", &last, &second, aim)?,
    ];
    Ok(Section {
        name: "fanout",
        title: format!("{count} streams of as many inboxes, one notification each, all at once"),
        unit: "as named",
        parties: vec![idle, last, budget, second],
        ratios,
        notes: vec![
            "An idle stream is measured in the first round, on a consumer that had none before: what the process \
             grows by, the connection's own buffers included, the kernel's not."
                .into(),
            "Late is from when the record was handed to rdkafka until its event was read; all records are \
             handed over in one burst, and the listeners share the processors."
                .into(),
        ],
        ..Section::default()
    })
}

/// The result of one burst.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) lateness_ms: f64,
    /// Growth of the consumer's memory for each stream.
    pub(crate) stream_bytes: f64,
}

/// Opens this many streams, measures the consumer's memory while they are idle, and sends each a
/// notification.
pub(crate) async fn measure_burst(
    kafka: &BareKafka,
    topic: &BenchTopic,
    consumer: &ServerProcess,
    count: u32,
) -> Result<Burst> {
    // Each stream is an open file of this process and of the consumer, which inherits the limit.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (kafka, topic) = (kafka.clone(), topic.clone());
    let (address, pid) = (consumer.address, consumer.pid());
    run_on_thread(async move || {
        let before = settled_memory_bytes(pid).await?;
        let users =
            (0..count).map(|index| generated_user(index.into())).collect::<Result<Vec<_>>>()?;
        let streams: Vec<EventStream> = stream::iter(users.iter().map(|user| user.id.get()))
            .map(|id| EventStream::open(address, id))
            .buffered(OPENING)
            .try_collect()
            .await?;
        let stream_bytes = (settled_memory_bytes(pid).await? - before) / f64::from(count);

        let producer = kafka.connect_producer(&topic)?;
        let encode = |(number, user)| encode_notification(user, &numbered_message(number));
        let records = users.iter().enumerate().map(encode).collect::<Result<Vec<_>>>()?;
        let sending = async {
            let (mut sent, mut deliveries) = (Vec::new(), Vec::new());
            for record in &records {
                sent.push(Instant::now());
                deliveries.push(BareKafka::append(&producer, &topic, record)?);
            }
            for delivery in deliveries {
                if !matches!(delivery.await, Ok(Ok(_))) {
                    return Err("a record was not acknowledged".into());
                }
            }
            Result::Ok(sent)
        };
        let receive = |mut stream: EventStream| async move {
            Result::Ok((stream.next_number().await?, Instant::now()))
        };
        let receiving: stream::FuturesUnordered<_> = streams.into_iter().map(receive).collect();
        let both = async { tokio::try_join!(sending, receiving.try_collect::<Vec<_>>()) };
        let (sent, received) =
            timeout(EVENT_TIMEOUT, both).await.map_err(|_| "an event did not come in time")??;
        let late = |(number, at): &(usize, Instant)| sent.get(*number).map(|sent| *at - *sent);
        let last = received.iter().filter_map(late).max().ok_or("no event came")?;
        Ok(Burst { lateness_ms: last.as_secs_f64() * 1000.0, stream_bytes })
    })
    .await
}
