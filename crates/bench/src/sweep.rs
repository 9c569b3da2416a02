//! `bench sweep`: the producer's settings that trade latency for throughput: every linger with
//! every compression, over one connection, over many, and in a bulk.

use std::time::Duration;

use crate::{
    Result,
    bulk::{line_chunk, post_lines},
    chart::{Row, Table},
    figures::{Sample, median},
    http::send_request,
    kafka::PARTITIONS,
    load::{LoadProfile, send_load},
    print_status,
    records::{MESSAGE, USERS},
    report::Section,
    testbed::Testbed,
};

const LINGERS: [&str; 5] = ["0", "500us", "1ms", "2ms", "5ms"];
/// The codecs of a plain build of librdkafka, except snappy.
const COMPRESSIONS: [&str; 3] = ["none", "lz4", "gzip"];
/// Kinds of load by their connections; `None` is a bulk.
const LOADS: [(&str, Option<usize>); 3] =
    [("1 connection", Some(1)), ("64 connections", Some(64)), ("bulk", None)];
/// Length of each load's warm-up.
const WARM_UP: Duration = Duration::from_millis(500);

/// One pair of settings, and its samples by kind of load.
struct SettingsPair {
    linger: &'static str,
    compression: &'static str,
    samples: [Vec<Sample>; LOADS.len()],
}

/// A producer reads its settings at its start, so pairs do not alternate round by round. Instead
/// there are passes over all pairs, every other one in reverse.
pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("sweep", PARTITIONS).await?;
    let round = Duration::from_millis(if testbed.options.quick { 1000 } else { 3000 });
    let (requests, chunk) = (USERS.map(|(id, _)| send_request(id, MESSAGE)), line_chunk()?);
    let mut pairs = Vec::new();
    for compression in COMPRESSIONS {
        pairs.extend(LINGERS.map(|linger| SettingsPair {
            linger,
            compression,
            samples: Default::default(),
        }));
    }
    // Warms up the broker, whose first seconds would count against the first pair.
    let producer = testbed.start_producer(&topic, &[]).await?;
    let warm_up = LoadProfile::closed(64, Duration::from_secs(4));
    send_load(&producer, &requests, &warm_up).await?;
    drop(producer);
    for _pass in 0..testbed.options.rounds_per_size() {
        for SettingsPair { linger, compression, samples } in &mut pairs {
            let flags = ["--linger", *linger, "--compression", *compression];
            let producer = testbed.start_producer(&topic, &flags).await?;
            for ((name, connections), samples) in LOADS.iter().zip(samples) {
                let run_for = async |round| match connections {
                    Some(connections) => {
                        let profile = LoadProfile::closed(*connections, round);
                        send_load(&producer, &requests, &profile).await
                    }
                    None => post_lines(&producer, &chunk, round).await,
                };
                run_for(WARM_UP).await?;
                let sample = run_for(round).await?;
                let value = sample.value;
                print_status(format_args!("sweep: {linger}, {compression}, {name}: {value:.0}/s"));
                samples.push(sample);
            }
        }
        pairs.reverse();
    }
    if testbed.options.rounds_per_size() % 2 == 1 {
        pairs.reverse();
    }
    let tables = LOADS.iter().enumerate();
    Ok(Section {
        name: "sweep",
        title: "POST /send by linger and compression".into(),
        tables: tables.map(|(load, (name, _))| to_table(name, load, &pairs)).collect(),
        notes: vec![
            "A closed loop for each pair of settings, on a producer of its own; medians of the passes over all \
             pairs. The defaults are 1ms and lz4. A bulk says nothing of single latencies. The broker keeps the \
             batches as they come and shares the processors, so what it saves is in the throughput."
                .into(),
        ],
        ..Section::default()
    })
}

fn to_table(title: &str, load: usize, pairs: &[SettingsPair]) -> Table {
    let figures: [fn(&Sample) -> Option<f64>; 4] =
        [|one| Some(one.value), |one| one.p50_ms, |one| one.p99_ms, |one| one.cpu_us];
    let to_row = |pair: &SettingsPair| Row {
        name: format!("{}, {}", pair.linger, pair.compression),
        figures: figures.map(|figure| median(&pair.samples[load], figure)).into(),
    };
    let columns = ["linger, compression", "sends/s", "p50 ms", "p99 ms", "CPU µs each"];
    Table {
        title: title.to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows: pairs.iter().map(to_row).collect(),
    }
}
