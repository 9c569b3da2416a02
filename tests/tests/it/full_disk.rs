//! A standalone on a disk that gets full. The fault suite does the same to Kafka and to snapshots.

use e2e::{faults::disk::SmallDisk, process::Standalone, until, world::page_messages};
use serde_json::Value;

const USER: i64 = 1;
/// Long messages fill the last free blocks soon.
const PADDING_BYTES: usize = 4000;
/// More than fits into the blocks that the log's files already have.
const MAX_SENDS: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount a small disk: task test:real"]
async fn a_standalone_on_a_full_disk_refuses_sends_and_has_lost_nothing_that_it_acknowledged() {
    let disk = match SmallDisk::mount(64) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("NOT RUN, because no disk can be mounted: {why}"),
    };
    let folder = disk.create_folder("data").expect("a folder");
    let client = reqwest::Client::new();
    let flags = ["--inbox-entries", "100000", "--inbox-bytes", "1073741824", "--rate-limit", "0"];
    let standalone = Standalone::start_with(&folder, &flags).await;
    let mut acknowledged = Vec::new();
    until(async || match send(&client, &standalone, "before").await {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    acknowledged.push("before".to_owned());

    disk.fill().expect("a file");
    let padding = "x".repeat(PADDING_BYTES);
    let refused = loop {
        let message = format!("{}-{padding}", acknowledged.len());
        match send(&client, &standalone, &message).await {
            200 => acknowledged.push(message),
            status => break status,
        }
        assert!(acknowledged.len() < MAX_SENDS, "the disk does not get full");
    };
    assert!([503, 504].contains(&refused), "{refused}");
    assert!(missing(&client, &standalone, &acknowledged).await.is_empty(), "while it is full");

    disk.free().expect("the file");
    until(async || match send(&client, &standalone, "after").await {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    acknowledged.push("after".to_owned());
    standalone.kill();
    drop(standalone);
    let standalone = Standalone::start_with(&folder, &flags).await;
    until(async || {
        let missing = missing(&client, &standalone, &acknowledged).await;
        if missing.is_empty() { Ok(()) } else { Err(missing.len()) }
    })
    .await;
}

async fn send(client: &reqwest::Client, standalone: &Standalone, message: &str) -> u16 {
    let url = format!("{}/send", standalone.producer);
    let form = format!("from_id=2&to_id={USER}&message={message}");
    let request = client.post(url).header("content-type", "application/x-www-form-urlencoded");
    request.body(form).send().await.expect("an answer").status().as_u16()
}

/// The acknowledged messages that the inbox does not show; all, if it is not shown.
async fn missing(
    client: &reqwest::Client,
    standalone: &Standalone,
    acknowledged: &[String],
) -> Vec<String> {
    let url = format!("{}/notifications/{USER}", standalone.consumer);
    let response = client.get(url).send().await.expect("an answer");
    let is_page = response.status() == 200;
    let body: Value = response.json().await.expect("JSON");
    let shown = if is_page { page_messages(&body) } else { Vec::new() };
    acknowledged.iter().filter(|message| !shown.contains(message)).cloned().collect()
}
