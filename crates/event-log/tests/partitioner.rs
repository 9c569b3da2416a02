//! Our partitioners send each key to the same partition as librdkafka's, which runs against its mock
//! broker.

use model::Partitioner;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{FutureProducer, FutureRecord},
};

const PARTITIONS: u32 = 12;

fn keys() -> impl Iterator<Item = String> {
    let ids = (1..=3000_i64).map(|id| id.to_string());
    let wide = (0..62).map(|bits| (1_i64 << bits).to_string());
    let other = ["a", "ab", "abc", "abcd", "abcde", "ключ", "a longer key, of more than one block"];
    ids.chain(wide).chain(other.map(str::to_owned))
}

#[tokio::test]
async fn every_key_goes_where_librdkafka_would_send_it() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("keys", 12, 1).expect("a topic");
    for (ours, theirs) in [
        (Partitioner::Murmur2, "murmur2_random"),
        (Partitioner::Fnv1a, "fnv1a_random"),
        (Partitioner::Crc32, "consistent_random"),
    ] {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("partitioner", theirs)
            .create()
            .expect("a producer");
        let sent: Vec<_> = keys()
            .map(|key| {
                let record = FutureRecord::to("keys").key(&key).payload("");
                let delivery = producer.send_result(record).expect("queued");
                (key.clone(), delivery)
            })
            .collect();
        for (key, delivery) in sent {
            let delivery = delivery.await.expect("a live producer").expect("delivered");
            assert_eq!(
                ours.partition_for(key.as_bytes(), PARTITIONS),
                delivery.partition,
                "{ours}: {key}"
            );
        }
    }
}
