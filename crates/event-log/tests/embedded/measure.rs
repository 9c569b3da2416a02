//! Measurements, not tests: they assert nothing about time. To see them:
//! `cargo test --release -p event-log --test embedded -- --ignored --nocapture --test-threads 1 measure`

use std::{
    fs::File,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use event_log::{
    NewRecord, PartitionHandler, Record, RecordOutcome, StartAt, Watermarks,
    embedded::EmbeddedWriter,
};
use parking_lot::Mutex;

use crate::harness::{DEADLINE, FOREVER, TOPIC, World, eventually, join};

const PARTITIONS: i32 = 12;

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// As large as a notification of a line or two, with its headers.
fn notification(number: i32) -> NewRecord {
    let headers = vec![
        ("ce_specversion", b"1.0".to_vec()),
        ("ce_id", b"01932b9e-5b1c-7cc3-98c4-dc0c0c07398f".to_vec()),
        ("ce_source", b"/producer".to_vec()),
        ("ce_type", b"notification.sent".to_vec()),
        ("ce_time", b"2026-11-22T12:41:07.123456Z".to_vec()),
        ("content-type", b"application/json".to_vec()),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec()),
    ];
    let value = format!(
        r#"{{"from":{{"id":2,"name":"Bruno"}},"to":{{"id":{number},"name":"Emma"}},"message":"{}"}}"#,
        "Your order has left the warehouse and will arrive tomorrow. ".repeat(3)
    );
    let key = number.to_string().into_bytes();
    let headers = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    NewRecord { partition: number.rem_euclid(PARTITIONS), key, value: value.into_bytes(), headers }
}

/// Counts, and remembers when the latest record came.
#[derive(Clone, Default)]
struct Counter {
    records: Arc<AtomicU64>,
    live: Arc<AtomicU64>,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl PartitionHandler for Counter {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        StartAt::Beginning
    }
    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}
    fn on_record(&mut self, _: &Record<'_>) -> RecordOutcome {
        if self.live.load(Ordering::Relaxed) == PARTITIONS as u64 {
            self.times.lock().push(Instant::now());
        }
        self.records.fetch_add(1, Ordering::Release);
        RecordOutcome::Applied
    }
    fn on_live(&mut self, _: i32) {
        self.live.fetch_add(1, Ordering::Release);
    }
    fn on_revoked(&mut self, _: i32) {}
}

/// Each appender waits for its acknowledgement before its next record.
async fn appenders(writer: &EmbeddedWriter, how_many: i32, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..how_many)
        .map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let mut acks = 0;
                while Instant::now() < until {
                    let ack = writer.append(TOPIC, notification(number)).expect("queued");
                    ack.await.expect("acknowledged");
                    acks += 1;
                }
                acks
            })
        })
        .collect();
    let mut acks = 0;
    for task in tasks {
        acks += task.await.expect("an appender");
    }
    acks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_acknowledgements_a_second() {
    let world = World::new();
    bare_fsync(&world);
    for readers in [false, true] {
        for how_many in [1, 64, 1000] {
            let world = World::new();
            let log = world.open(PARTITIONS as u32, FOREVER).await;
            let reader = readers.then(|| join(&log, Counter::default()));
            let time = Duration::from_secs(4);
            let acks = appenders(&log.writer(), how_many, time).await;
            let rate = acks as f64 / time.as_secs_f64();
            let size = |name: &str| {
                std::fs::metadata(world.path().with_file_name(name)).map_or(0, |file| file.len())
                    >> 20
            };
            say(&format!(
                "{how_many:4} appenders, reader {readers}: {rate:8.0} acks/s, file {} MiB, wal {} MiB",
                size("log.db"),
                size("log.db-wal")
            ));
            if let Some(reader) = reader {
                reader.stop().await;
            }
            log.close().await;
        }
    }
}

/// What the disk allows: a page and an fsync, again and again.
fn bare_fsync(world: &World) {
    let path = world.path();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let mut file = File::create(path.with_extension("bare")).expect("a file");
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(2) {
        file.write_all(&[7; 8192]).expect("written");
        file.sync_data().expect("flushed");
        count += 1;
    }
    say(&format!("bare appending of 8 KiB and fsync: {:.0}/s", f64::from(count) / 2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_latency_at_500_a_second() {
    let world = World::new();
    let log = world.open(PARTITIONS as u32, FOREVER).await;
    let counter = Counter::default();
    let reader = join(&log, counter.clone());
    eventually("live", || counter.live.load(Ordering::Acquire) == PARTITIONS as u64).await;
    let writer = log.writer();
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    let mut sent = Vec::new();
    let mut acked = Vec::new();
    for number in 0..5000 {
        pace.tick().await;
        sent.push(Instant::now());
        writer.append(TOPIC, notification(number)).expect("queued").await.expect("acknowledged");
        acked.push(Instant::now());
    }
    eventually("all read", || counter.times.lock().len() == sent.len()).await;
    let read = counter.times.lock().clone();
    percentiles("append to acknowledgement", &sent, &acked);
    percentiles("append to on_record", &sent, &read);
    percentiles("acknowledgement to on_record (0: before it)", &acked, &read);
    reader.stop().await;
    log.close().await;
}

fn percentiles(what: &str, from: &[Instant], to: &[Instant]) {
    let mut times: Vec<_> =
        from.iter().zip(to).map(|(from, to)| to.saturating_duration_since(*from)).collect();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)];
    say(&format!("{what}: p50 {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_replay() {
    const RECORDS: i32 = 500_000;
    let world = World::new();
    let log = world.open(PARTITIONS as u32, FOREVER).await;
    let writer = log.writer();
    let start = Instant::now();
    for number in 0..RECORDS {
        while writer.append(TOPIC, notification(number)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(writer.flush(DEADLINE).await);
    let rate = f64::from(RECORDS) / start.elapsed().as_secs_f64();
    let size = std::fs::metadata(world.path()).map_or(0, |file| file.len());
    say(&format!(
        "without waiting for each other: {rate:.0} records/s written; {} bytes a record of {}",
        size / RECORDS as u64,
        {
            let r = notification(1000);
            r.key.len()
                + r.value.len()
                + r.headers.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>()
        }
    ));
    for _ in 0..3 {
        let counter = Counter::default();
        let start = Instant::now();
        let reader = join(&log, counter.clone());
        eventually("live", || counter.live.load(Ordering::Acquire) == PARTITIONS as u64).await;
        let rate = f64::from(RECORDS) / start.elapsed().as_secs_f64();
        assert_eq!(counter.records.load(Ordering::Acquire), RECORDS as u64);
        say(&format!("replay: {rate:.0} records/s"));
        reader.stop().await;
    }
    log.close().await;
}
