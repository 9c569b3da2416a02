//! `bench syscalls`: the system calls of a request, counted by strace. They explain the kernel's share
//! of a request better than a profile does.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    Result,
    figures::Spread,
    http::get_request,
    kafka::PARTITIONS,
    load::{LoadProfile, send_load},
    process::ServerProcess,
    read::fill,
    records::{Recipients, generated_user},
    report::{Row, Section, Table},
    send::sender_header,
    testbed::Testbed,
};

/// Calls that are rarer than this are left out of the table.
const MIN_CALLS: f64 = 0.01;
/// strace needs this long to attach to every thread.
const ATTACH_DELAY: Duration = Duration::from_millis(500);

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let mut section = Section::new("syscalls", "system calls of a request, 64 connections");
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        section.note("Not measured: strace is not installed.");
        return Ok(section);
    }
    let topic = testbed.create_topic("syscalls", PARTITIONS).await?;
    fill(testbed, &topic, 640, 64).await?;
    let (consumer, _) = testbed.start_consumer(&topic, 640, &[]).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let body = testbed.folder().join("constant.json");
    std::fs::write(&body, "x".repeat(3000))?;
    let body = body.to_string_lossy();
    let constant =
        testbed.start_limit(&["constant", "--body", &body, "--server", "axum"], &[]).await?;
    let reads = (0..64)
        .map(|index| Ok(get_request(&format!("/notifications/{}", generated_user(index)?.id))));
    let reads = reads.collect::<Result<Vec<_>>>()?;
    let sends = Recipients(4).send_requests(&sender_header(testbed)?)?;
    let columns = [
        ("GET, constant", count_calls(testbed, &constant, &reads).await?),
        ("GET, consumer", count_calls(testbed, &consumer, &reads).await?),
        ("POST /send, producer", count_calls(testbed, &producer, &sends).await?),
    ];
    let mut calls: Vec<&String> = columns.iter().flat_map(|(_, calls)| calls.keys()).collect();
    calls.sort();
    calls.dedup();
    let row = |call: &&String| Row {
        name: (*call).clone(),
        figures: columns.iter().map(|(_, calls)| Spread::new(calls.get(*call).copied())).collect(),
    };
    section.tables.push(Table {
        title: "Calls of each request".into(),
        columns: std::iter::once("")
            .chain(columns.iter().map(|(name, _)| *name))
            .map(str::to_owned)
            .collect(),
        rows: calls.iter().map(row).collect(),
    });
    section.note("The producer's include those of librdkafka's threads. Under strace a request takes longer, so less is done at a time.");
    Ok(section)
}

async fn count_calls(
    testbed: &Testbed,
    server: &ServerProcess,
    requests: &[Vec<u8>],
) -> Result<BTreeMap<String, f64>> {
    let file = testbed.folder().join(format!("strace-{}", server.pid()));
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&file)
        .args(["-p", &server.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()?;
    sleep(ATTACH_DELAY).await;
    let profile = LoadProfile::closed(64, testbed.options.round());
    let sample = send_load(server, None, requests, profile).await;
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    let count = sample?.count as f64;
    // Columns: share, seconds, µs a call, calls, errors (may be empty), name.
    let text = std::fs::read_to_string(&file)?;
    let rows = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let calls = fields.get(3)?.parse::<f64>().ok()? / count;
        let name = *fields.last()?;
        (name != "total" && calls >= MIN_CALLS).then(|| (name.to_owned(), calls))
    });
    Ok(rows.collect())
}
