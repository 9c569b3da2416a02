//! Many streams of as many inboxes: what an idle one costs, and how late the last of them hears of
//! its notification when all are sent in one burst.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    Result,
    figures::Sample,
    kafka::{Kafka, Topic},
    listeners::{Listener, message},
    records,
    subjects::Service,
};

/// Connections that are opened at a time.
const OPENING: usize = 64;
/// How long everything may take to come to rest before memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// How late the last may be before it counts as lost.
const LOST: Duration = Duration::from_secs(30);

/// What one burst showed.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Of the last event, in milliseconds.
    pub(crate) lateness: Sample,
    /// What the consumer grew by for each stream, in bytes.
    pub(crate) stream_bytes: Sample,
}

/// Opens so many streams, looks at the memory while they are idle, and sends each a notification.
pub(crate) async fn all_at_once(
    kafka: &Kafka,
    topic: &Topic,
    consumer: &Service,
    count: usize,
) -> Result<Heard> {
    // Each is an open file, here and there.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    sleep(SETTLE).await;
    let before = consumer.memory()?;
    let (kafka, topic, address) = (kafka.clone(), topic.clone(), consumer.address);
    let (opened, is_open) = oneshot::channel();
    let (measured, go_on) = oneshot::channel();
    let round = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(all_listen(&kafka, &topic, address, count, opened, go_on))
    });
    let mut after = before;
    if is_open.await.is_ok() {
        sleep(SETTLE).await;
        after = consumer.memory()?;
        let _ = measured.send(());
    }
    let lateness = round.await??;
    #[allow(clippy::cast_precision_loss)] // far below 2⁵²
    let each = (after as f64 - before as f64) / count as f64;
    Ok(Heard { lateness, stream_bytes: Sample::of(each, u64::try_from(count)?) })
}

async fn all_listen(
    kafka: &Kafka,
    topic: &Topic,
    address: SocketAddr,
    count: usize,
    opened: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
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
