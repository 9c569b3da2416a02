//! `bench restart`: a rolling restart of three consumers under many streams, which come back by their
//! cursor to one of the others, as a load balancer sends them.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use service::server::limits::HttpLimits;
use tokio::{
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    Result,
    cpu::{count_sockets, status_bytes},
    figures::Spread,
    http::{EventStream, numbered_message},
    kafka::{BareKafka, BenchTopic, PARTITIONS},
    load::run_on_thread,
    print_status,
    process::{ServerProcess, free_address},
    records::{encode_notification, generated_user},
    report::{Aim, Row, Section, Table},
    testbed::Testbed,
};

const CONSUMERS: usize = 3;
/// Streams that are opened at a time in the beginning.
const OPENING: usize = 64;
/// Delay before the page and an EventSource come back, unless the service tells another one.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const RESUME_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks at a server's memory and sockets.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// A container's memory in the manifests.
const MEMORY_LIMIT_MIB: f64 = 512.0;

/// State that all streams share, on their thread.
#[derive(Default)]
struct Crowd {
    /// The consumer to which the load balancer sends a new stream.
    targets: RefCell<Vec<SocketAddr>>,
    next_target: Cell<usize>,
    open: Cell<usize>,
    refused: Cell<u64>,
    /// Refused again when it came back the second time.
    refused_twice: Cell<u64>,
    resumed: Cell<u64>,
    /// Notifications by user: how often each came.
    received: RefCell<Vec<u32>>,
}

impl Crowd {
    fn pick_target(&self) -> Option<SocketAddr> {
        let targets = self.targets.borrow();
        self.next_target.set(self.next_target.get() + 1);
        targets.get(self.next_target.get() % targets.len().max(1)).copied()
    }
}

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let count: u32 = if testbed.options.quick { 2000 } else { 10_000 };
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let topic = testbed.create_topic("restart", PARTITIONS).await?;
    let group = testbed.unique_name("group");
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        let address = free_address()?;
        consumers.push(start(testbed, &topic, &group, address)?);
    }
    for consumer in &mut consumers {
        consumer.await_ready().await?;
    }
    let crowd_topic = topic.clone();
    let kafka = testbed.kafka.clone();
    let local = LocalSet::new();
    let crowd = Rc::new(Crowd::default());
    *crowd.received.borrow_mut() = vec![0; usize::try_from(count)?];
    *crowd.targets.borrow_mut() = consumers.iter().map(|consumer| consumer.address).collect();
    let measuring = async {
        print_status(format_args!("restart: opening {count} streams"));
        open_streams(&crowd, count).await?;
        let mut rows = Vec::new();
        for number in 0..CONSUMERS {
            let consumer = consumers.remove(0);
            let (address, before) = (consumer.address, crowd.resumed.get());
            let peak = Rc::new(Cell::new((0.0, 0usize)));
            let watching: Vec<u32> = consumers.iter().map(ServerProcess::pid).collect();
            let watcher = spawn_local(watch(watching, Rc::clone(&peak)));
            crowd.targets.borrow_mut().retain(|target| *target != address);
            let begun = Instant::now();
            // A notification for each, of which a stream that ends now must miss none.
            send_to_all(&kafka, &crowd_topic, count).await?;
            consumer.stop().await?;
            await_all_open(&crowd, count).await?;
            let seconds = begun.elapsed().as_secs_f64();
            let mut started = start(testbed, &topic, &group, address)?;
            started.await_ready().await?;
            // Partitions move back to it, which ends their streams once more.
            await_all_open(&crowd, count).await?;
            crowd.targets.borrow_mut().push(address);
            consumers.push(started);
            watcher.abort();
            let (memory, sockets) = peak.get();
            let resumed = (crowd.resumed.get() - before) as f64;
            print_status(format_args!("restart: consumer {number}: all open after {seconds:.1} s"));
            let figures = [seconds, resumed, memory / 1048576.0, sockets as f64];
            rows.push((format!("consumer {}", number + 1), figures));
        }
        await_received(&crowd, CONSUMERS).await;
        Result::Ok(rows)
    };
    let rows = local.run_until(measuring).await?;
    to_section(&crowd, count, &rows)
}

fn to_section(crowd: &Crowd, count: u32, rows: &[(String, [f64; 4])]) -> Result<Section> {
    let mut section = Section::new(
        "restart",
        format!("a rolling restart of {CONSUMERS} consumers under {count} streams"),
    );
    let one = |value: f64| Spread::new([value]);
    let columns = [
        "restarted",
        "seconds until all are open",
        "streams that came back",
        "peak memory of the others, MiB",
        "peak sockets of the others",
    ];
    section.tables.push(Table {
        title: "By restart".into(),
        columns: columns.map(str::to_owned).into(),
        rows: rows
            .iter()
            .map(|(name, figures)| Row { name: name.clone(), figures: figures.map(one).into() })
            .collect(),
    });
    let most = |index: usize| rows.iter().map(|(_, figures)| figures[index]).fold(0.0, f64::max);
    let work = format!("rolling restart, {count} streams");
    section.judge(&format!("{work}: all resumed"), "–", one(most(0)), "s", Aim::AtMost(10.0));
    section.judge(
        &format!("{work}: refused twice"),
        "–",
        one(crowd.refused_twice.get() as f64),
        "streams",
        Aim::AtMost(0.0),
    );
    section.judge(
        &format!("{work}: peak memory of a consumer"),
        "its container's",
        one(most(2)),
        "MiB",
        Aim::AtMost(MEMORY_LIMIT_MIB),
    );
    let max_connections = HttpLimits::default().max_connections as f64;
    section.judge(
        &format!("{work}: peak sockets of a consumer"),
        "its limit of connections",
        one(most(3)),
        "sockets",
        Aim::AtMost(max_connections),
    );
    let received = crowd.received.borrow();
    let sent = u32::try_from(CONSUMERS)?;
    let wrong = received.iter().filter(|times| **times != sent).count();
    section.judge(
        &format!("{work}: streams that lost or doubled a notification"),
        "–",
        one(wrong as f64),
        "streams",
        Aim::AtMost(0.0),
    );
    section.note(format!(
        "Time runs from SIGTERM until every stream is open on another consumer. {} attempts were refused. Each stream \
         comes back after {} s, with its cursor, as an EventSource does.",
        crowd.refused.get(),
        RETRY_DELAY.as_secs(),
    ));
    Ok(section)
}

fn start(
    testbed: &Testbed,
    topic: &BenchTopic,
    group: &str,
    address: SocketAddr,
) -> Result<ServerProcess> {
    let url = format!("http://{address}");
    testbed.spawn_consumer(address, topic, group, &["--advertise", &url], false)
}

/// Opens a stream for each user, and a task that keeps it open.
async fn open_streams(crowd: &Rc<Crowd>, count: u32) -> Result<()> {
    let open = |index: u32| {
        let crowd = Rc::clone(crowd);
        async move {
            let user = generated_user(index.into())?.id.get();
            let target = crowd.pick_target().ok_or("no consumer")?;
            let stream = EventStream::open(target, user).await?;
            crowd.open.set(crowd.open.get() + 1);
            spawn_local(keep_open(Rc::clone(&crowd), stream, user, usize::try_from(index)?));
            Result::Ok(())
        }
    };
    let mut opening = stream::iter((0..count).map(open)).buffer_unordered(OPENING);
    while let Some(opened) = opening.next().await {
        opened?;
    }
    Ok(())
}

/// Counts the stream's notifications, and resumes it whenever it ends.
async fn keep_open(crowd: Rc<Crowd>, mut stream: EventStream, user: i64, index: usize) {
    loop {
        while stream.next_number().await.is_ok() {
            crowd.received.borrow_mut()[index] += 1;
        }
        crowd.open.set(crowd.open.get() - 1);
        let cursor = stream.cursor().to_owned();
        let mut refusals = 0;
        stream = loop {
            sleep(RETRY_DELAY).await;
            let Some(target) = crowd.pick_target() else { continue };
            if let Ok(resumed) = EventStream::resume(target, user, &cursor).await {
                break resumed;
            }
            refusals += 1;
            crowd.refused.set(crowd.refused.get() + 1);
            if refusals == 2 {
                crowd.refused_twice.set(crowd.refused_twice.get() + 1);
            }
        };
        crowd.resumed.set(crowd.resumed.get() + 1);
        crowd.open.set(crowd.open.get() + 1);
    }
}

async fn await_all_open(crowd: &Crowd, count: u32) -> Result<()> {
    let deadline = Instant::now() + RESUME_TIMEOUT;
    let count = usize::try_from(count)?;
    while crowd.open.get() < count {
        if Instant::now() > deadline {
            return Err(format!("only {} of {count} streams came back", crowd.open.get()).into());
        }
        sleep(CHECK_INTERVAL).await;
    }
    Ok(())
}

/// Waits until every stream has received as many notifications, or the time is over.
async fn await_received(crowd: &Crowd, times: usize) {
    let all = async {
        while crowd
            .received
            .borrow()
            .iter()
            .any(|received| usize::try_from(*received).is_ok_and(|got| got < times))
        {
            sleep(CHECK_INTERVAL).await;
        }
    };
    let _ = timeout(RESUME_TIMEOUT, all).await;
}

async fn send_to_all(kafka: &BareKafka, topic: &BenchTopic, count: u32) -> Result<()> {
    let (kafka, topic) = (kafka.clone(), topic.clone());
    run_on_thread(async move || {
        let producer = kafka.connect_producer(&topic)?;
        let mut deliveries = Vec::new();
        for index in 0..count {
            let message = numbered_message(usize::try_from(index)?);
            let record = encode_notification(&generated_user(index.into())?, &message)?;
            deliveries.push(BareKafka::append(&producer, &topic, &record)?);
        }
        for delivery in deliveries {
            if !matches!(delivery.await, Ok(Ok(_))) {
                return Err("a record was not acknowledged".into());
            }
        }
        Ok(())
    })
    .await
}

/// Keeps the greatest memory (`VmHWM`) and number of sockets of these processes.
async fn watch(pids: Vec<u32>, peak: Rc<Cell<(f64, usize)>>) {
    loop {
        for pid in &pids {
            let (memory, sockets) = peak.get();
            let now = (status_bytes(*pid, "VmHWM").unwrap_or(0.0), count_sockets(*pid));
            peak.set((memory.max(now.0), sockets.max(now.1)));
        }
        sleep(WATCH_INTERVAL).await;
    }
}
