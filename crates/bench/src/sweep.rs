//! `bench sweep`: the producer's two settings that trade time for throughput, every linger with every
//! compression, over one connection, over many, and in a bulk.

use std::time::Duration;

use crate::{
    Result,
    bulk::{post_lines, some_lines},
    chart::{Row, Table},
    connection::post_form,
    effort::Effort,
    figures::{Sample, Spread},
    kafka::Topic,
    load::Load,
    report::Section,
    say,
    send::{MESSAGE, USERS},
    site::Site,
};

const LINGERS: [&str; 5] = ["0", "500us", "1ms", "2ms", "5ms"];
/// Those that a plain build of librdkafka has, but for snappy, which is for whoever needs it.
const COMPRESSIONS: [&str; 3] = ["none", "lz4", "gzip"];
/// Of the load; none is a bulk.
const CONNECTIONS: [Option<usize>; 3] = [Some(1), Some(64), None];
/// Of each, before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// One pair of settings, and what every kind of load did with it.
struct Pair {
    linger: &'static str,
    compression: &'static str,
    /// Of each kind of load, the samples of all passes.
    samples: Vec<Vec<Sample>>,
}

/// Measures and reports. A producer takes its settings when it starts, so pairs do not take turns
/// round by round; there are passes over all of them, every other one from the end.
pub(crate) async fn run(site: &mut Site) -> Result<Section> {
    let topic = site.topic("sweep").await?;
    let round = Duration::from_millis(if site.options.quick { 1000 } else { 3000 });
    let send = |(id, _)| post_form("/send", &format!("from_id=2&to_id={id}&message={MESSAGE}"));
    let (requests, lines) = (USERS.map(send), some_lines()?);
    let pair = |linger, compression| Pair {
        linger,
        compression,
        samples: CONNECTIONS.iter().map(|_| Vec::new()).collect(),
    };
    let of = |compression| LINGERS.map(|linger| pair(linger, compression));
    let mut pairs: Vec<Pair> = COMPRESSIONS.into_iter().flat_map(of).collect();
    warm_up(site, &topic, &requests).await?;
    for _pass in 0..site.options.short_rounds() {
        for Pair { linger, compression, samples } in &mut pairs {
            let flags = ["--linger", *linger, "--compression", *compression];
            let producer = site.producer_with(&topic, &flags).await?;
            for (connections, samples) in CONNECTIONS.iter().zip(samples) {
                for (round, counts) in [(WARM_UP, false), (round, true)] {
                    let sample = match connections {
                        Some(connections) => {
                            let effort = Effort { connections: *connections, round, rate: None };
                            Load::round(&producer, &requests, &effort).await?
                        }
                        None => post_lines(&producer, &lines, round).await?,
                    };
                    if counts {
                        let (what, value) = (kind(*connections), sample.value);
                        say(format_args!("sweep: {linger}, {compression}, {what}: {value:.0}/s"));
                        samples.push(sample);
                    }
                }
            }
        }
        pairs.reverse();
    }
    if site.options.short_rounds() % 2 == 1 {
        pairs.reverse();
    }
    let tables = CONNECTIONS.iter().enumerate();
    Ok(Section {
        name: "sweep",
        title: "POST /send by linger and compression".into(),
        tables: tables.map(|(index, connections)| table(&kind(*connections), index, &pairs)).collect(),
        notes: vec![
            "A closed loop for each pair of settings, on a producer of its own; medians of the passes over all \
             pairs. The defaults are 1ms and lz4. A bulk says nothing of single latencies. The broker keeps the \
             batches as they come and shares the processors, so what it saves is in the throughput."
                .into(),
        ],
        ..Section::default()
    })
}

/// What a broker that has just started is slow at would else be the first pair's fault.
async fn warm_up(site: &mut Site, topic: &Topic, requests: &[Vec<u8>]) -> Result<()> {
    let producer = site.producer(topic).await?;
    let effort = Effort { connections: 64, round: Duration::from_secs(4), rate: None };
    Load::round(&producer, requests, &effort).await.map(|_| ())
}

fn kind(connections: Option<usize>) -> String {
    match connections {
        Some(1) => "1 connection".into(),
        Some(connections) => format!("{connections} connections"),
        None => "bulk".into(),
    }
}

fn table(title: &str, kind: usize, pairs: &[Pair]) -> Table {
    let row = |pair: &Pair| {
        let median = |figure: fn(&Sample) -> Option<f64>| {
            Spread::of(pair.samples[kind].iter().filter_map(figure)).map(|spread| spread.median)
        };
        Row {
            name: format!("{}, {}", pair.linger, pair.compression),
            figures: vec![
                median(|sample| Some(sample.value)),
                median(|sample| sample.p50_ms),
                median(|sample| sample.p99_ms),
                median(|sample| sample.cpu_us),
            ],
        }
    };
    let columns = ["linger, compression", "sends/s", "p50 ms", "p99 ms", "CPU µs each"];
    Table {
        title: title.to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows: pairs.iter().map(row).collect(),
    }
}
