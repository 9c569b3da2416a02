//! Consumers whose connections to Kafka are slow or cut, one of two, through a TCP proxy.

use std::time::{Duration, Instant};

use e2e::{
    World,
    backend::Backend,
    real::RealServer,
    tcp_proxy::{Direction, TcpProxy},
    until,
    world::{PARTITIONS, consumer_client_id, page_messages, unique_name},
};
use serde_json::{Value, json};

/// The recipient in all of these tests.
const USER: i64 = 2;
/// How long answers are recorded after the next owner's first one.
const AFTERWARDS: Duration = Duration::from_secs(6);
/// The bound that the guarantees state.
const MAX_STALENESS: Duration = Duration::from_secs(9);

/// Two consumers and a producer that reach their broker through a proxy.
struct CutWorld {
    world: World,
    proxy: TcpProxy,
    /// The consumer that owns the user's inbox, whose connections fail.
    owner: usize,
    _broker: RealServer,
}

impl CutWorld {
    async fn start() -> Self {
        let proxy = TcpProxy::listen().await.expect("a free port");
        let broker = RealServer::start_advertised(proxy.address().port());
        proxy.set_server(broker.address.parse().expect("an address"));
        let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
        let topic = unique_name("notifications");
        let brokers = proxy.address().to_string();
        let backend = Backend::from_servers(brokers, &server, &topic.replace('-', "_")).await;
        let mut world = World::with_backend(backend, topic).await;
        world.send(1, USER, "before").await;
        world.start_consumer(1, &[]).await;
        let mut cut = Self { world, proxy, owner: 0, _broker: broker };
        // Both own partitions, so each knows the other's URL.
        until(|| async {
            let owned = [cut.count_live(0).await, cut.count_live(1).await];
            let is_shared = owned.iter().sum::<usize>() == PARTITIONS as usize;
            if is_shared && !owned.contains(&0) { Ok(()) } else { Err(owned) }
        })
        .await;
        cut.owner = until(|| async {
            let own = [cut.read_own(0).await, cut.read_own(1).await];
            own.iter().position(Option::is_some).ok_or("no owner yet")
        })
        .await;
        cut
    }

    async fn count_live(&self, number: usize) -> usize {
        let url = self.world.nth_consumer_url(number, "/partitions");
        let response = self.world.http().get(url).send().await.expect("an answer");
        let body: Value = response.json().await.expect("JSON");
        let partitions = body["partitions"].as_array().expect("a list");
        partitions.iter().filter(|partition| partition["state"] == "live").count()
    }

    fn cut_owner(&self, directions: &[Direction]) {
        for direction in directions {
            self.proxy.set_cut(&consumer_client_id(self.owner), *direction, true);
        }
    }

    /// What this consumer answers from its own memory, if it answers so.
    async fn read_own(&self, number: usize) -> Option<Value> {
        let url = self.world.nth_consumer_url(number, &format!("/notifications/{USER}"));
        let request = self.world.http().get(url).header("x-notifications-hop", "1");
        let response = request.send().await.expect("an answer");
        if response.status() != 200 {
            return None;
        }
        Some(response.json().await.expect("JSON"))
    }

    /// Waits until the other consumer answers from its own memory, and [`AFTERWARDS`]. Returns when
    /// its first answer ended.
    async fn await_next_owner(&self) -> Instant {
        let other = 1 - self.owner;
        let next = until(|| async {
            self.read_own(other).await.map(|_| Instant::now()).ok_or("not the owner yet")
        });
        let next = next.await;
        tokio::time::sleep(AFTERWARDS).await;
        next
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn two_owners_never_answer_at_once_though_kafka_answers_late() {
    const LATE: Duration = Duration::from_secs(4);
    let cut = CutWorld::start().await;
    cut.proxy.set_delay(&consumer_client_id(cut.owner), Direction::ToClient, LATE);
    // The fault has to last until late answers have arrived.
    tokio::time::sleep(LATE * 2).await;
    // Answers that are on their way still arrive. No question does.
    cut.cut_owner(&[Direction::ToServer]);
    let mut answered = Vec::new();
    let ask_old_owner = async {
        loop {
            let asked_at = Instant::now();
            if cut.read_own(cut.owner).await.is_some() {
                answered.push(asked_at);
            }
        }
    };
    let next = tokio::select! {
        next = cut.await_next_owner() => next,
        () = ask_old_owner => unreachable!("it never ends"),
    };
    let late = answered.iter().filter(|asked_at| **asked_at > next).count();
    assert_eq!(late, 0, "the old owner answered {late} times after the next one");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn an_owner_that_is_cut_off_from_kafka_is_stale_for_a_bounded_time() {
    let cut = CutWorld::start().await;
    cut.cut_owner(&[Direction::ToServer, Direction::ToClient]);
    cut.world.send(1, USER, "meanwhile").await;
    let sent_at = Instant::now();
    let mut stale = Duration::ZERO;
    let ask_old_owner = async {
        loop {
            let age = sent_at.elapsed();
            if let Some(page) = cut.read_own(cut.owner).await {
                assert_eq!(page_messages(&page), ["before"]);
                stale = age;
            }
        }
    };
    tokio::select! {
        _ = cut.await_next_owner() => {}
        () = ask_old_owner => unreachable!("it never ends"),
    }
    assert!(stale < MAX_STALENESS, "still answered from memory after {stale:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_receipt_is_not_answered_200_by_an_owner_that_cannot_know_the_notification() {
    let cut = CutWorld::start().await;
    cut.cut_owner(&[Direction::ToServer, Direction::ToClient]);
    let sent = cut.world.send(1, USER, "meanwhile").await;
    let url = cut.world.nth_consumer_url(cut.owner, &format!("/notifications/{USER}/read"));
    for body in [json!({ "ids": [sent["sent"][0]["id"]] }), json!({})] {
        let request = cut.world.http().post(&url).header("x-notifications-hop", "1").json(&body);
        let status = request.send().await.expect("an answer").status().as_u16();
        assert!([421, 503, 504].contains(&status), "{body}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_consumer_that_is_cut_off_from_kafka_asks_its_peers_for_its_former_users() {
    let cut = CutWorld::start().await;
    cut.cut_owner(&[Direction::ToServer, Direction::ToClient]);
    cut.world.send(1, USER, "meanwhile").await;
    cut.await_next_owner().await;
    let url = cut.world.nth_consumer_url(cut.owner, &format!("/notifications/{USER}"));
    let page = until(|| async {
        let response = cut.world.http().get(&url).send().await.expect("an answer");
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        if status == 200 && page_messages(&body).len() == 2 { Ok(body) } else { Err(body) }
    })
    .await;
    assert_eq!(page_messages(&page), ["before", "meanwhile"]);
}
