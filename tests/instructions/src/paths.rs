//! The hot paths.

use std::{
    future::Future,
    hint::black_box,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use consumer::{
    apply::{AssignmentListener, NotificationApplier},
    view::{Limits, View},
};
use event_log::{Log, NewRecord, PartitionHandler, Record, Watermarks, mock::Cluster};
use jiff::Timestamp;
use model::{
    Headers, Notification, NotificationId, Partitioner, User, UserId,
    record::{EncodedRecord, encode_notification},
};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::{
    Failure,
    client::Client,
    services::{PARTITIONS, Services, TOPIC},
};

/// Long enough for a service to start under valgrind.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const MESSAGE: &str = "Bruno started following you.";
const LINES_OF_A_BULK: u64 = 1024;

/// A path of the services.
pub(crate) struct HotPath {
    pub(crate) name: &'static str,
    /// How often a step is done and counted.
    steps: u64,
    /// Operations of a step.
    operations: u64,
    work: Work,
}

/// Does the path's operations of one step.
type Step = Box<dyn FnMut() -> Result<(), Failure> + Send>;

enum Work {
    /// Steps of a client, on a thread of its own. The services' work is counted.
    OfServices(fn(&Services) -> Result<Step, Failure>),
    /// Steps that are counted themselves.
    Itself(fn() -> Result<Step, Failure>),
}

impl HotPath {
    /// All paths, in the order in which they are walked.
    pub(crate) const ALL: [Self; 6] = [
        Self { name: "get", steps: 300, operations: 1, work: Work::OfServices(get) },
        Self {
            name: "get_with_token",
            steps: 300,
            operations: 1,
            work: Work::OfServices(get_with_token),
        },
        Self { name: "send_form", steps: 200, operations: 1, work: Work::OfServices(send_form) },
        Self {
            name: "bulk_line",
            steps: 10,
            operations: LINES_OF_A_BULK,
            work: Work::OfServices(send_bulk),
        },
        Self {
            name: "write_event",
            steps: 200,
            operations: 1,
            work: Work::OfServices(write_event),
        },
        Self { name: "apply_record", steps: 5000, operations: 1, work: Work::Itself(apply_record) },
    ];

    /// The operations that are counted.
    pub(crate) fn counted_operations(&self) -> u64 {
        self.steps * self.operations
    }
}

/// Walks the path of this name: a tenth of its steps to warm up, and then to be counted.
pub(crate) fn walk(name: &str) -> Result<(), Failure> {
    let path = HotPath::ALL.iter().find(|path| path.name == name).ok_or("no such path")?;
    let (steps, warm_up) = (path.steps, path.steps / 10);
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::start()?;
    match path.work {
        Work::OfServices(prepare) => {
            let services = Services::start(&runtime, &cluster, folder.path())?;
            let mut step = runtime.block_on(on_thread(move || {
                let mut step = prepare(&services)?;
                repeat(warm_up, &mut step)?;
                Ok(step)
            }))?;
            run_counted_work(&runtime, Box::pin(on_thread(move || repeat(steps, &mut step))))
        }
        Work::Itself(prepare) => {
            let _within = runtime.enter();
            let mut step = prepare()?;
            repeat(warm_up, &mut step)?;
            run_counted_work(&runtime, Box::pin(async { repeat(steps, &mut step) }))
        }
    }
}

/// Callgrind counts within this function alone, so it must neither be inlined nor have a closure.
#[inline(never)]
fn run_counted_work(
    runtime: &Runtime,
    work: Pin<Box<dyn Future<Output = Result<(), Failure>> + '_>>,
) -> Result<(), Failure> {
    black_box(runtime.block_on(work))
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (done, result) = oneshot::channel();
    thread::spawn(move || drop(done.send(work())));
    result.await?
}

fn repeat(times: u64, step: &mut Step) -> Result<(), Failure> {
    (0..times).try_for_each(|_| step())
}

/// Ten entries of the inbox of user 1.
fn get(services: &Services) -> Result<Step, Failure> {
    get_from(services, services.consumer, String::new())
}

/// The same, of a consumer that verifies a token.
fn get_with_token(services: &Services) -> Result<Step, Failure> {
    let header = format!("Authorization: Bearer {}\r\n", services.token);
    get_from(services, services.guarded_consumer, header)
}

fn get_from(services: &Services, from: SocketAddr, header: String) -> Result<Step, Failure> {
    let mut client = Client::connect(from)?;
    let mut get = move || client.request("GET /notifications/1", &header, "");
    until(|| get().map(drop))?;
    for number in 0..10 {
        append(&services.log, 1, &format!("{MESSAGE} {number}"))?;
    }
    until(|| {
        let page = get()?;
        (page.matches(MESSAGE).count() == 10).then_some(()).ok_or_else(|| page.into())
    })?;
    Ok(Box::new(move || get().map(drop)))
}

/// The tutorial's form, up to the queue and back from it.
fn send_form(services: &Services) -> Result<Step, Failure> {
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
    let mut client = Client::connect(services.producer)?;
    let body = format!("from_id=2&to_id=1&message={MESSAGE}").replace(' ', "+");
    let mut send = move || client.request("POST /send", FORM, &body).map(drop);
    until(&mut send)?;
    Ok(Box::new(send))
}

fn send_bulk(services: &Services) -> Result<Step, Failure> {
    const LINES: &str = "Content-Type: application/x-ndjson\r\n";
    let mut client = Client::connect(services.producer)?;
    let line = format!("{{\"from_id\":2,\"to_id\":1,\"message\":\"{MESSAGE}\"}}\n");
    let body = line.repeat(usize::try_from(LINES_OF_A_BULK)?);
    Ok(Box::new(move || client.request("POST /send", LINES, &body).map(drop)))
}

/// An event to an open stream, from the wake-up of its task on.
fn write_event(services: &Services) -> Result<Step, Failure> {
    let mut client = Client::connect(services.consumer)?;
    client.start_request("GET /notifications/2/stream", "", "")?;
    let (log, mut number) = (services.log.clone(), 0);
    Ok(Box::new(move || {
        number += 1;
        let message = format!("{MESSAGE} {number}!");
        append(&log, 2, &message)?;
        while !client.read_line()?.contains(&message) {}
        Ok(())
    }))
}

/// A record applied to the view, of 100 users in turn.
fn apply_record() -> Result<Step, Failure> {
    let view = Arc::new(View::new(1, Partitioner::default(), Limits::default()));
    let mut applier = NotificationApplier::new(view, TOPIC.into(), NoListener, None);
    applier.on_assigned(0);
    applier.on_watermarks(0, Watermarks { low: 0, high: 1 });
    let mut records = Vec::new();
    for number in 0..6000 {
        records.push(encode(1 + number % 100, MESSAGE)?);
    }
    let (mut records, mut offset) = (records.into_iter(), 0);
    Ok(Box::new(move || {
        let record = records.next().ok_or("too few records")?;
        let headers = record.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let (key, value) = (Some(&*record.key), Some(&*record.value));
        applier.on_record(&Record { partition: 0, offset, timestamp_ms: 0, key, value, headers });
        offset += 1;
        Ok(())
    }))
}

struct NoListener;

impl AssignmentListener for NoListener {
    fn on_assigned(&self, _: i32) {}
    fn on_live(&self, _: i32) {}
    fn on_revoked(&self, _: i32) {}
}

/// Appends a notification for this user, and does not wait.
fn append(log: &Log, to: i64, message: &str) -> Result<(), Failure> {
    let EncodedRecord { key, value, headers } = encode(to, message)?;
    let partition = Partitioner::default().partition_for(&key, PARTITIONS);
    let _ack = log.writer().append(TOPIC, NewRecord { partition, key, value, headers })?;
    Ok(())
}

fn encode(to: i64, message: &str) -> Result<EncodedRecord, Failure> {
    let user = |id, name: &str| -> Result<_, Failure> {
        Ok(User { id: UserId::new(id)?, name: name.to_owned().into() })
    };
    let notification = Notification::new(user(9, "Bruno")?, user(to, "Emma")?, message);
    let (id, sent_at) = (NotificationId::generate(), Timestamp::now());
    let headers = Headers { id, sent_at, traceparent: None, fingerprint: None };
    Ok(encode_notification(&notification, &headers)?)
}

/// Repeats `attempt` until it succeeds.
fn until(mut attempt: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
            outcome => return outcome,
        }
    }
}
