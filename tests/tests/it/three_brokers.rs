//! Three brokers with replication 3, of which one is killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{real::RealServer, until, world::unique_name};
use event_log::{
    Log, NewRecord, Topic,
    kafka::{Kafka, KafkaSettings},
    topic::Cleanup,
};
use futures_util::future::join_all;

const PARTITIONS: u32 = 6;
/// A kill meets an unlucky moment in most of these rounds.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: task test:real"]
async fn a_killed_broker_of_three_refuses_no_append() {
    let brokers = RealServer::start_cluster(3);
    let addresses: Vec<_> = brokers.iter().map(|broker| broker.address.as_str()).collect();
    let settings = KafkaSettings {
        brokers: addresses.join(","),
        client_id: "test".into(),
        ..KafkaSettings::default()
    };
    let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
    let topic = Topic {
        name: unique_name("notifications"),
        partitions: PARTITIONS,
        replication: 3,
        cleanup: Cleanup::After(Duration::from_secs(3600)),
    };
    log.ensure_topics(std::slice::from_ref(&topic)).await.expect("the topic");

    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let appenders = (0..PARTITIONS).map(|partition| {
        let (writer, topic) = (log.writer(), topic.name.clone());
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let mut refused = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let partition = i32::try_from(partition).expect("a partition");
                let (key, value) = (b"1".to_vec(), b"{}".to_vec());
                let record = NewRecord { partition, key, value, headers: Vec::new() };
                let outcome = match writer.append(&topic, record) {
                    Ok(ack) => ack.await.map(drop),
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(()) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => refused.push(error),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            refused
        })
    });
    let appenders: Vec<_> = appenders.collect();
    await_progress(&acknowledged).await;
    for round in 0..ROUNDS {
        let victim = &brokers[round % brokers.len()];
        victim.run_action("kill");
        await_progress(&acknowledged).await;
        victim.start_again("kafka");
        await_progress(&acknowledged).await;
    }
    stop.store(true, Ordering::Relaxed);
    let refused: Vec<_> = join_all(appenders)
        .await
        .into_iter()
        .flat_map(|refused| refused.expect("a task"))
        .collect();
    assert_eq!(refused, [], "{} acknowledged", acknowledged.load(Ordering::Relaxed));
}

/// Waits for 500 more acknowledgements.
async fn await_progress(acknowledged: &AtomicU64) {
    let before = acknowledged.load(Ordering::Relaxed);
    until(|| async {
        let now = acknowledged.load(Ordering::Relaxed);
        if now >= before + 500 { Ok(()) } else { Err(now - before) }
    })
    .await;
}
