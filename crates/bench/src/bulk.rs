//! `bench bulk`: lines posted to /send over one connection, as fast as they are answered, beside a
//! bare rdkafka loop that writes the same records to the same topic.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    http::connect_tcp,
    kafka::PARTITIONS,
    load::{LoadProfile, measure_server},
    loops::alternate,
    options::LoadArgs,
    process::ServerProcess,
    records::{self, MESSAGE, USERS},
    report::Section,
    testbed::Testbed,
};

const PRODUCER: &str = "producer";
const BARE: &str = "bare rdkafka loop";
/// Lines of one write.
const LINES_PER_CHUNK: usize = 256;
/// Records in flight of the bare loop: the producer's limit for lines.
const IN_FLIGHT: usize = 4096;
/// How long after the round the last answers may come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn measure(testbed: &mut Testbed, args: &LoadArgs) -> Result<Section> {
    let topic = testbed.create_topic("bulk", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let (chunk, records) = (line_chunk()?, records::encode_for_migrated_users()?);
    let round = args.closed_loop(testbed.options.quick).round;
    let profile = LoadProfile::closed(IN_FLIGHT, round);
    let (rounds, parties) = (testbed.options.rounds(), [PRODUCER, BARE]);
    let show = |sample: &Sample| format!("{:.0} records/s", sample.value);
    let samples = alternate("bulk", rounds, &parties, show, async |party| match party {
        0 => post_lines(&producer, &chunk, round).await,
        _ => testbed.kafka.run_append_loop(&topic, &records, &profile).await,
    });
    let samples = samples.await?;

    let subject = Party::new(PRODUCER, "subject", &samples[0])?;
    let limit = Party::new(BARE, "limit", &samples[1])?;
    let name = format!("{PRODUCER} / {BARE}");
    let ratio = Ratio::new(&name, &subject, &limit, Some(Aim::AtLeast(0.80)))?;
    Ok(Section {
        name: "bulk",
        title: format!("POST /send of lines, acks=all, one connection, {IN_FLIGHT} in flight"),
        unit: "records/s",
        parties: vec![subject, limit],
        ratios: vec![ratio],
        notes: vec![
            "The bare loop's records are encoded beforehand, and it has no HTTP, no JSON, no users and no answers. \
             Both share two processors with the broker."
                .into(),
        ],
        ..Section::default()
    })
}

/// One round of lines, with the processor time of the producer for each.
pub(crate) async fn post_lines(
    producer: &ServerProcess,
    chunk: &str,
    round: Duration,
) -> Result<Sample> {
    let (address, chunk) = (producer.address, chunk.to_owned());
    measure_server(producer, async move || post_chunks(address, &chunk, round).await).await
}

/// An HTTP chunk of [`LINES_PER_CHUNK`] lines, for the migration's users in turns.
pub(crate) fn line_chunk() -> Result<String> {
    let (mut lines, message) = (String::new(), serde_json::to_string(MESSAGE)?);
    for (id, _) in USERS.iter().cycle().take(LINES_PER_CHUNK) {
        lines.push_str(&format!("{{\"from_id\":2,\"to_id\":{id},\"message\":{message}}}\n"));
    }
    Ok(format!("{:x}\r\n{lines}\r\n", lines.len()))
}

/// Posts chunks for the length of the round, and counts the successful result lines.
async fn post_chunks(address: SocketAddr, chunk: &str, round: Duration) -> Result<Sample> {
    let mut stream = connect_tcp(address).await?;
    let head = "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let (mut answers, mut requests) = stream.split();
    let started = Instant::now();
    let writing = async {
        let mut written = 0;
        while started.elapsed() < round {
            requests.write_all(chunk.as_bytes()).await?;
            written += LINES_PER_CHUNK;
        }
        requests.write_all(b"0\r\n\r\n").await?;
        Ok::<_, std::io::Error>(written)
    };
    let reading = async {
        let (mut buffer, mut succeeded, mut tail) = (vec![0; 64 << 10], 0, Vec::new());
        while !tail.ends_with(b"0\r\n\r\n") {
            match answers.read(&mut buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => {
                    let text = &buffer[..length];
                    // A successful line has one list, `"sent":[…]`.
                    succeeded += text.iter().filter(|byte| **byte == b'[').count();
                    tail.extend_from_slice(&text[length.saturating_sub(5)..]);
                    tail.drain(..tail.len().saturating_sub(5));
                }
            }
        }
        Ok(succeeded)
    };
    let both = async { tokio::try_join!(writing, reading) };
    let (written, succeeded) = timeout(round + ANSWER_TIMEOUT, both)
        .await
        .map_err(|_| "the last lines were not answered in time")??;
    let rate = succeeded as f64 / started.elapsed().as_secs_f64();
    let mut sample = Sample::new(rate, u64::try_from(succeeded)?);
    sample.failed = u64::try_from(written - succeeded)?;
    Ok(sample)
}
