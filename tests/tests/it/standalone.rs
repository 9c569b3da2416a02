//! The standalone as a process, killed and interrupted.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use e2e::{
    process::{Standalone, build_program},
    until,
    world::page_messages,
};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_standalone_has_lost_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let standalone = Standalone::start(folder.path()).await;
        let stop = AtomicBool::new(false);
        let sending = async {
            let client = reqwest::Client::new();
            let mut sent = Vec::new();
            for n in 0.. {
                let message = format!("{round}-{n}");
                match try_send(&client, &standalone.producer, 1, &message).await {
                    Some(200) => sent.push(message),
                    // Not ready yet.
                    Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    None => break,
                }
                if sent.len() >= 40 {
                    stop.store(true, Ordering::Release);
                }
            }
            sent
        };
        let (sent, ()) = tokio::join!(sending, async {
            until(|| async {
                if stop.load(Ordering::Acquire) { Ok(()) } else { Err("still sending") }
            })
            .await;
            // Kill it during sends: the concurrent loop ends when the connection is refused.
            standalone.kill();
        });
        drop(standalone);
        acknowledged.extend(sent);
    }
    let standalone = Standalone::start(folder.path()).await;
    let found = inbox_messages(&standalone.consumer, 1).await;
    let expected: Vec<_> = found.iter().filter(|m| acknowledged.contains(m)).cloned().collect();
    assert_eq!(expected, acknowledged, "everything acknowledged, once, in order");
    // In each round one more may have been written without its answer arriving.
    assert!(found.len() <= acknowledged.len() + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_killed_between_two_snapshots_has_lost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = folder.path().join("snapshots");
    let flags = ["--snapshots", snapshots.to_str().expect("UTF-8"), "--snapshot-every", "50ms"];
    let client = reqwest::Client::new();
    let mut sent: Vec<String> = Vec::new();
    let written = || {
        let file = snapshots
            .join(format!("topic-notifications/{}.snapshot", e2e::world::home_partition(1)));
        file.metadata().and_then(|file| file.modified()).ok()
    };
    for round in 0..3 {
        let standalone = Standalone::start_with(folder.path(), &flags).await;
        let before = written();
        let deadline = std::time::Instant::now() + e2e::until::DEADLINE;
        let mut since = 0;
        // Wait for a snapshot of this round, then send some more.
        while since < 10 {
            assert!(std::time::Instant::now() < deadline, "no snapshot in round {round}");
            let message = format!("{round}-{}", sent.len());
            match try_send(&client, &standalone.producer, 1, &message).await {
                Some(200) => sent.push(message),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            since += usize::from(written() != before);
        }
        kill_and_await_exit(standalone).await;
        let again = Standalone::start_with(folder.path(), &flags).await;
        assert_eq!(
            inbox_messages(&again.consumer, 1).await,
            sent[sent.len().saturating_sub(1000)..]
        );
        let metrics = reqwest::get(format!("{}/metrics", again.consumer)).await.expect("an answer");
        let metrics = metrics.text().await.expect("text");
        let restored = metrics
            .lines()
            .find_map(|line| line.strip_prefix("notifications_restored_total "))
            .and_then(|count| count.parse::<f64>().ok());
        assert!(restored.is_some_and(|restored| restored > 0.0), "{metrics}");
        kill_and_await_exit(again).await;
    }
}

/// Kills it, and waits until the lock of its folder is released.
async fn kill_and_await_exit(standalone: Standalone) {
    standalone.kill();
    until(|| async {
        match reqwest::get(format!("{}/livez", standalone.consumer)).await {
            Ok(answer) => Err(answer.status()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_standalone_ends_well_and_shows_the_same_inboxes_when_it_starts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = reqwest::Client::new();
    let first = Standalone::start(folder.path()).await;
    until(|| async {
        match try_send(&client, &first.producer, 2, "kept").await {
            Some(200) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let before = read_page(&first.consumer, 2).await;
    assert!(first.interrupt().await, "exit code 0 at Ctrl-C");

    let second = Standalone::start(folder.path()).await;
    assert_eq!(read_page(&second.consumer, 2).await, before);
    assert!(second.interrupt().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_its_consumer_may_send_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let standalone = Standalone::start(folder.path()).await;
    let by_name = standalone.consumer.replace("127.0.0.1", "localhost");
    for (origin, may) in
        [(&standalone.consumer, true), (&by_name, true), (&standalone.producer, false)]
    {
        let preflight = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, format!("{}/send", standalone.producer))
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let answer = preflight.send().await.expect("an answer");
        let allowed = answer.headers().get("access-control-allow-origin");
        let allowed = allowed.and_then(|value| value.to_str().ok());
        assert_eq!(allowed, may.then_some(origin.as_str()), "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_used_folder_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = Standalone::start(folder.path()).await;
    let taken = running.producer.trim_start_matches("http://").to_owned();

    let said = failed_start_output(&folder.path().join("other"), &taken).await;
    for part in [&*taken, "producer", "--producer-listen", "PRODUCER_LISTEN"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = failed_start_output(folder.path(), "127.0.0.1:0").await;
    assert!(said.contains("log.db"), "{said}");
}

async fn failed_start_output(folder: &Path, producer: &str) -> String {
    let run = tokio::process::Command::new(build_program("standalone"))
        .arg("--data-dir")
        .arg(folder)
        .args(["--producer-listen", producer, "--consumer-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .output();
    let output =
        tokio::time::timeout(e2e::until::DEADLINE, run).await.expect("an end").expect("a process");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The status of a send; `None` without an answer.
async fn try_send(client: &reqwest::Client, base: &str, to: i64, message: &str) -> Option<u16> {
    let form = format!("from_id=3&to_id={to}&message={message}");
    let request = client
        .post(format!("{base}/send"))
        .header("content-type", "application/x-www-form-urlencoded");
    request.body(form).send().await.ok().map(|response| response.status().as_u16())
}

async fn read_page(base: &str, user: i64) -> Value {
    until(|| async {
        let response =
            reqwest::get(format!("{base}/notifications/{user}")).await.expect("an answer");
        let ok = response.status() == 200;
        let body: Value = response.json().await.expect("JSON");
        if ok && !page_messages(&body).is_empty() { Ok(body) } else { Err(body) }
    })
    .await
}

async fn inbox_messages(base: &str, user: i64) -> Vec<String> {
    page_messages(&read_page(base, user).await)
}
