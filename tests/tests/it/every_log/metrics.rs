//! What `/metrics` of both services says of what happened. All services of this process share one
//! recorder, and other tests count with it at the same time: what is counted there has grown by as
//! much as happened here, or more.

use consumer::metrics::{
    DELIVERY_SECONDS, ENTRIES, ENTRY_BYTES, INBOXES, LAG, PARTITIONS as STATES, REBUILD_RECORDS,
    REBUILD_SECONDS, RECORDS_FOLDED, STREAMS,
};
use e2e::{
    World,
    listener::{Listener, Transport},
    scrape::Scrape,
    until::until,
    world::{PARTITIONS, home},
};
use event_log::metrics::DEAD_LETTERS;
use producer::metrics::{
    ACKNOWLEDGEMENT_SECONDS, BULK_LINES, DIRECTORY_CACHED, DIRECTORY_LOOKUPS, DIRECTORY_TRUSTED,
    SENT,
};
use serde_json::{Value, json};
use service::ops::metrics::{
    BUILD_INFO, CPU_SECONDS, HTTP_CONNECTIONS, HTTP_IN_FLIGHT, HTTP_REQUESTS, HTTP_SECONDS,
};

/// A user whose id is nowhere else.
const USER: i64 = 47_110_815;

async fn scrapes(world: &World) -> (Scrape, Scrape) {
    let producer = Scrape::of(world, &world.producer("")).await;
    (producer, Scrape::of(world, &world.consumer("")).await)
}

/// Asserts that this has grown by at least so much.
fn grown(before: &Scrape, after: &Scrape, name: &str, labels: &[(&str, &str)], by: f64) {
    let (before, now) = (before.sum(name, labels), after.sum(name, labels));
    assert!(now - before >= by, "{name}{labels:?}: from {before} to {now}\n{}", after.text);
}

pub(crate) async fn counted(world: World) {
    world.ready(&world.producer("")).await;
    world.ready(&world.consumer("")).await;
    let url = world.producer(&format!("/users/{USER}"));
    let made = world.http().put(url).json(&json!({ "name": "Nora" })).send().await;
    assert_eq!(made.expect("an answer").status(), 201);
    let (producer_before, consumer_before) = until(|| async {
        let (producer, consumer) = scrapes(&world).await;
        let live = consumer.sum(STATES, &[("state", "live")]);
        let all = live == f64::from(PARTITIONS)
            // The log may be late, and then it is left out.
            && consumer.count(LAG, &[]) == PARTITIONS as usize;
        if all { Ok((producer, consumer)) } else { Err(consumer) }
    })
    .await;

    let mut listeners = Vec::new();
    for transport in Transport::ALL {
        let query = "access_token=hunter2";
        let opened = Listener::open(transport, &world.consumer(""), USER, query).await;
        let mut listener = opened.expect("an open stream");
        listener.expect("state").await;
        listeners.push(listener);
    }
    world.send(2, USER, "hello").await;
    for listener in &mut listeners {
        assert_eq!(listener.messages(1).await, ["hello"]);
    }
    let keyed = async || {
        let body = format!("from_id=2&to_id={USER}&message=once");
        let request = world.http().post(world.producer("/send")).header("idempotency-key", "k");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(request.body(body).send().await.expect("an answer").status(), 200);
    };
    keyed().await;
    keyed().await;
    let lines = format!("{{\"from_id\":2,\"to_id\":{USER},\"message\":\"bulk\"}}\nrubbish\n");
    let bulk = world.http().post(world.producer("/send"));
    let bulk = bulk.header("content-type", "application/x-ndjson").body(lines).send().await;
    bulk.expect("an answer").text().await.expect("all answers");
    world.append_raw(home(1), "1", "rubbish").await;
    for listener in &mut listeners {
        assert_eq!(listener.messages(2).await, ["once", "bulk"]);
    }
    // The poison was the last, so all has happened when it is set aside.
    let (producer, consumer) = until(|| async {
        let (producer, consumer) = scrapes(&world).await;
        let poison = [("topic", "notifications"), ("outcome", "poison")];
        let set_aside = consumer.sum(RECORDS_FOLDED, &poison) >= 1.0
            && consumer.sum(DEAD_LETTERS, &[]) > consumer_before.sum(DEAD_LETTERS, &[]);
        if set_aside { Ok((producer, consumer)) } else { Err(consumer) }
    })
    .await;

    let before = &producer_before;
    grown(before, &producer, SENT, &[("outcome", "acknowledged")], 3.0);
    grown(before, &producer, SENT, &[("outcome", "duplicate")], 1.0);
    grown(before, &producer, BULK_LINES, &[("status", "200")], 1.0);
    grown(before, &producer, BULK_LINES, &[("status", "400")], 1.0);
    grown(before, &producer, DIRECTORY_LOOKUPS, &[], 8.0);
    let count = |metric: &str| format!("{metric}_count");
    grown(before, &producer, &count(ACKNOWLEDGEMENT_SECONDS), &[], 3.0);
    let sent = [("service", "producer"), ("method", "POST"), ("route", "/send"), ("status", "200")];
    grown(before, &producer, HTTP_REQUESTS, &sent, 4.0);
    grown(before, &producer, &count(HTTP_SECONDS), &[("route", "/send")], 4.0);
    assert!(producer.sum(DIRECTORY_CACHED, &[]) >= 1.0, "{}", producer.text);
    assert_eq!(producer.count(DIRECTORY_TRUSTED, &[]), 1);

    let before = &consumer_before;
    let applied = [("topic", "notifications"), ("outcome", "applied")];
    assert!(consumer.sum(RECORDS_FOLDED, &applied) >= 3.0, "{}", consumer.text);
    // States are of this consumer alone, so they are exact.
    assert_eq!((consumer.sum(INBOXES, &[]), consumer.sum(ENTRIES, &[])), (1.0, 3.0));
    assert!(consumer.sum(ENTRY_BYTES, &[]) > 300.0);
    for kind in ["sse", "ndjson", "ws"] {
        assert_eq!(consumer.sum(STREAMS, &[("kind", kind)]), 1.0, "{kind}");
    }
    assert_eq!(consumer.sum(STREAMS, &[("kind", "forwarded")]), 0.0);
    grown(before, &consumer, &count(DELIVERY_SECONDS), &[("stage", "applied")], 3.0);
    grown(before, &consumer, &count(DELIVERY_SECONDS), &[("stage", "pushed")], 9.0);
    let route =
        [("service", "consumer"), ("route", "/notifications/{id}/stream"), ("status", "200")];
    grown(before, &consumer, HTTP_REQUESTS, &route, 2.0);
    assert!(consumer.sum(HTTP_CONNECTIONS, &[]) >= 3.0);

    for (service, scrape) in [("producer", &producer), ("consumer", &consumer)] {
        assert_eq!(scrape.count(BUILD_INFO, &[("service", service)]), 1);
        assert_eq!(scrape.sum(HTTP_IN_FLIGHT, &[]), 1.0, "the scrape itself");
        assert!(scrape.sum(CPU_SECONDS, &[]) > 0.0 || !cfg!(target_os = "linux"));
        for secret in [USER.to_string().as_str(), "hunter2", "Nora"] {
            assert!(!scrape.text.contains(secret), "{secret}: {}", scrape.text);
        }
    }
    // Each says what is its own alone, although both are one process here.
    assert_eq!((producer.count(STATES, &[]), consumer.count(SENT, &[])), (0, 0));
    assert_eq!(consumer.count(HTTP_REQUESTS, &[("service", "producer")]), 0);

    drop(listeners);
    until(|| async {
        let consumer = Scrape::of(&world, &world.consumer("")).await;
        if consumer.sum(STREAMS, &[]) == 0.0 { Ok(()) } else { Err(consumer) }
    })
    .await;
}

pub(crate) async fn rebuilt(mut world: World) {
    world.send(2, 1, "hello").await;
    world.expect_inbox(1, &["hello".into()]).await;
    let before = Scrape::of(&world, &world.consumer("")).await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &[]).await;
    world.ready(&world.consumer("")).await;
    // A partition is counted a moment after it is live. Until the one who left has said so to all, the
    // new one may be ready to pass requests on to them.
    let after = until(|| async {
        let after = Scrape::of(&world, &world.consumer("")).await;
        let grown = after.seen(REBUILD_SECONDS, &[]) - before.seen(REBUILD_SECONDS, &[]);
        let live = after.sum(STATES, &[("state", "live")]);
        if live.min(grown) >= f64::from(PARTITIONS) { Ok(after) } else { Err(after.text) }
    })
    .await;
    assert_eq!(after.count(REBUILD_RECORDS, &[]), 2);
    assert_eq!(after.sum(REBUILD_RECORDS, &[]), 0.0, "nothing is being rebuilt any more");
}

pub(crate) async fn described(world: World) {
    for base in [world.producer(""), world.consumer("")] {
        let document = world.http().get(format!("{base}/openapi.json")).send().await;
        let document: Value = document.expect("an answer").json().await.expect("JSON");
        let content = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
        assert!(content.get("text/plain").is_some(), "{document}");
    }
}
