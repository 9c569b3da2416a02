//! `bench streams`: many streams of as many inboxes: the memory of an idle one as a slope, and how
//! late the last one receives its notification when all are sent in one burst.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use crate::{
    Result,
    figures::Spread,
    http::{EventStream, numbered_message},
    kafka::{BareKafka, BenchTopic, PARTITIONS},
    load::run_on_thread,
    process::{ServerProcess, settled_memory_bytes},
    records::{encode_notification, generated_user},
    report::{Aim, Section},
    testbed::Testbed,
    turns::take_turns,
};

/// Streams that are opened at a time.
const OPENING: usize = 64;
/// An event later than this counts as lost.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let (few, many) = if testbed.options.quick { (200, 2000) } else { (1000, 10_000) };
    // Each stream is an open file of this process and of the consumer, which inherits the limit.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut section = Section::new("streams", format!("{many} streams of as many inboxes"));
    let names = [format!("{few} streams"), format!("{many} streams")];
    let names = names.each_ref().map(String::as_str);
    let show = |burst: &Burst| format!("{:.0} B, {:.0} ms late", burst.memory, burst.lateness_ms);
    let rounds = testbed.options.few_rounds();
    let bursts = take_turns("streams", rounds, &names, show, async |index| {
        // Each on a consumer of its own: later streams reuse memory that the allocator kept.
        let topic = testbed.create_topic("streams", PARTITIONS).await?;
        let (consumer, _) = testbed.start_consumer(&topic, 0, &[]).await?;
        measure_burst(&testbed.kafka, &topic, &consumer, [few, many][index]).await
    });
    let bursts = bursts.await?;
    let memory = |index: usize| Spread::new(bursts[index].iter().map(|burst| burst.memory));
    let slope = memory(1).and_then(|many| many.minus(&memory(0)?));
    let slope = slope.and_then(|bytes| {
        Spread::new(bytes.rounds.iter().map(|bytes| bytes / f64::from(many - few)))
    });
    section.judge("an idle stream, as a slope", "–", slope, "B", Aim::AtMost(2500.0));
    let late = Spread::new(bursts[1].iter().map(|burst| burst.lateness_ms));
    section.judge(
        &format!("{many} subscribers, a notification each at once: the last"),
        "–",
        late,
        "ms late",
        Aim::AtMost(300.0),
    );
    section
        .note("The memory is the process's anonymous memory; the kernel's buffers are not in it.");
    section.note(
        "Late is from when a record was handed to rdkafka until its event was read. All records are handed over in \
         one burst, and the listeners share the processors.",
    );
    Ok(section)
}

struct Burst {
    /// The consumer's with all streams idle, less that before the first.
    memory: f64,
    lateness_ms: f64,
}

/// Opens this many streams, measures the consumer's memory while they are idle, and sends each a
/// notification.
async fn measure_burst(
    kafka: &BareKafka,
    topic: &BenchTopic,
    consumer: &ServerProcess,
    count: u32,
) -> Result<Burst> {
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
        let memory = settled_memory_bytes(pid).await? - before;

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
        Ok(Burst { memory, lateness_ms: last.as_secs_f64() * 1000.0 })
    })
    .await
}
