//! `bench sweep`: the producer's linger and compression by what they cost the producer and the
//! broker, over one connection, over many, and in a bulk.

use crate::{
    Result,
    bulk::{post_lines, to_chunks},
    figures::Sample,
    kafka::{BenchTopic, PARTITIONS},
    load::{LoadProfile, send_load},
    records::Recipients,
    report::Section,
    send::sender_header,
    testbed::Testbed,
    turns::{show_sample, take_turns},
};

const LINGERS: [&str; 5] = ["0", "500us", "1ms", "2ms", "5ms"];
/// The codecs of a plain build of librdkafka, except snappy.
const COMPRESSIONS: [&str; 3] = ["none", "lz4", "gzip"];
/// Kinds of load, by their connections and rate; without connections it is a bulk.
const LOADS: [(&str, Option<usize>, Option<u32>); 4] = [
    ("1 connection", Some(1), None),
    ("64 connections, 5,000 a second", Some(64), Some(5000)),
    ("400 connections", Some(400), None),
    ("bulk, 50,000 lines a second", None, Some(50_000)),
];

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("sweep", PARTITIONS).await?;
    let mut pairs = Vec::new();
    for compression in COMPRESSIONS {
        pairs.extend(LINGERS.map(|linger| [linger, compression]));
    }
    let names: Vec<String> = pairs.iter().map(|pair| pair.join(", ")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut section = Section::new("sweep", "POST /send by linger and compression");
    for (title, connections, rate) in LOADS {
        let rounds = testbed.options.few_rounds();
        let samples = take_turns(title, rounds, &names, show_sample, async |index| {
            measure_pair(testbed, &topic, pairs[index], connections, rate).await
        });
        section.add_samples(title, &names, &samples.await?);
    }
    section.note("The defaults are 1ms and lz4.");
    Ok(section)
}

/// One round on a producer of its own, since it reads its settings when it starts.
async fn measure_pair(
    testbed: &mut Testbed,
    topic: &BenchTopic,
    [linger, compression]: [&str; 2],
    connections: Option<usize>,
    rate: Option<u32>,
) -> Result<Sample> {
    let flags = ["--linger", linger, "--compression", compression];
    let producer = testbed.start_producer(topic, &flags).await?;
    let (broker, header) = (testbed.broker, sender_header(testbed)?);
    let round = testbed.options.round();
    let profile = LoadProfile { rate, ..LoadProfile::closed(connections.unwrap_or(1), round) };
    match connections {
        Some(_) => {
            send_load(&producer, broker, &Recipients(4).send_requests(&header)?, profile).await
        }
        None => post_lines(&producer, broker, &to_chunks(4)?, &header, profile).await,
    }
}
