//! `bench bulk`: lines posted to /send over one connection, beside reading and parsing the same lines
//! and a bare rdkafka loop that appends the same records, added.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use crate::{
    Result,
    figures::{Sample, costs, rates},
    http::connect_tcp,
    kafka::PARTITIONS,
    load::{ANSWER_TIMEOUT, LoadProfile, Ready, measure_process},
    process::ServerProcess,
    records::{MESSAGE, Recipients},
    report::{Aim, Section},
    send::{MANY, append_load, create_users, sender_header},
    testbed::Testbed,
    turns::{half_of_the_slowest, show_sample, take_turns},
};

/// Lines of one write.
const LINES_PER_CHUNK: usize = 256;
/// Records in flight of the bare loop: the producer's limit for lines.
const IN_FLIGHT: usize = 4096;
const PARTIES: [&str; 5] = [
    "producer, 4 recipients",
    "producer, 50,000 recipients",
    "producer without a cache of names, 50,000",
    "lines read, parsed and answered",
    "bare rdkafka loop, 50,000 recipients",
];

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("bulk", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let cold = testbed.start_producer(&topic, &["--directory-cache", "0"]).await?;
    let parse = testbed.start_limit(&["parse"], &[]).await?;
    create_users(testbed, &producer, MANY).await?;
    let header = sender_header(testbed)?;
    let (few, many) = (to_chunks(4)?, to_chunks(MANY)?);
    let bed = &*testbed;
    let run = async |party: usize, profile: LoadProfile| match party {
        0 => post_lines(&producer, bed.broker, &few, &header, profile).await,
        1 => post_lines(&producer, bed.broker, &many, &header, profile).await,
        2 => post_lines(&cold, bed.broker, &many, &header, profile).await,
        3 => post_lines(&parse, None, &many, &header, profile).await,
        _ => append_load(bed, &topic, MANY, profile).await,
    };
    let (options, mut section) =
        (&bed.options, Section::new("bulk", "POST /send of lines, one connection"));
    let profile = LoadProfile::closed(IN_FLIGHT, options.round());
    let title = "As much as can be";
    let closed = take_turns(title, options.few_rounds(), &PARTIES, show_sample, async |party| {
        run(party, profile).await
    });
    let closed = closed.await?;
    section.add_samples(title, &PARTIES, &closed);
    let rate = options.rate.map_or_else(|| half_of_the_slowest(&closed), Ok)?;
    let title = format!("{rate} a second");
    let profile = LoadProfile { rate: Some(rate), ..profile };
    let open = take_turns(&title, options.rounds(), &PARTIES, show_sample, async |party| {
        run(party, profile).await
    });
    let open = open.await?;
    section.add_samples(&title, &PARTIES, &open);
    let added = costs(&open[3]).and_then(|one| one.plus(&costs(&open[4])?));
    let cost = costs(&open[1]).and_then(|one| one.divided_by(&added?));
    let beside = "lines read, parsed and answered + bare rdkafka loop";
    section.judge(
        "bulk, processor time a line, 50,000 recipients",
        beside,
        cost,
        "×",
        Aim::AtMost(1.4),
    );
    let in_turn = |one: f64, other: f64| 1.0 / (1.0 / one + 1.0 / other);
    let added = rates(&closed[3]).and_then(|one| one.zip(&rates(&closed[4])?, in_turn));
    let share = rates(&closed[1]).and_then(|one| one.divided_by(&added?));
    section.judge("bulk, lines/s, 50,000 recipients", beside, share, "×", Aim::AtLeast(0.7));
    Ok(section)
}

/// HTTP chunks of [`LINES_PER_CHUNK`] lines, which reach each recipient once.
pub(crate) fn to_chunks(recipients: u64) -> Result<Vec<String>> {
    let message = serde_json::to_string(MESSAGE)?;
    let lines = u64::try_from(LINES_PER_CHUNK)?;
    let chunk = |number: u64| {
        let mut text = String::new();
        for index in number * lines..(number + 1) * lines {
            let id = Recipients(recipients).user(index)?.id;
            text.push_str(&format!("{{\"from_id\":2,\"to_id\":{id},\"message\":{message}}}\n"));
        }
        Ok(format!("{:x}\r\n{text}\r\n", text.len()))
    };
    (0..recipients.div_ceil(lines)).map(chunk).collect()
}

/// One round of lines, as fast as they are answered or at the profile's rate.
pub(crate) async fn post_lines(
    server: &ServerProcess,
    broker: Option<u32>,
    chunks: &[String],
    headers: &str,
    profile: LoadProfile,
) -> Result<Sample> {
    let (address, chunks, headers) = (server.address, chunks.to_vec(), headers.to_owned());
    measure_process(server.pid(), broker, async move |ready: Ready<'_>| {
        post_chunks(ready, address, &chunks, &headers, profile).await
    })
    .await
}

/// Posts chunks for the length of the round, and counts the successful result lines.
async fn post_chunks(
    ready: Ready<'_>,
    address: SocketAddr,
    chunks: &[String],
    headers: &str,
    LoadProfile { round, rate, .. }: LoadProfile,
) -> Result<Sample> {
    let mut stream = connect_tcp(address).await?;
    let head = format!(
        "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         {headers}Transfer-Encoding: chunked\r\n\r\n"
    );
    ready.begin()?;
    stream.write_all(head.as_bytes()).await?;
    let (mut answers, mut requests) = stream.split();
    let started = Instant::now();
    let pause = rate.map(|rate| Duration::from_secs_f64(LINES_PER_CHUNK as f64 / f64::from(rate)));
    let writing = async {
        let mut written = 0;
        let mut due = started;
        for chunk in chunks.iter().cycle() {
            if started.elapsed() >= round {
                break;
            }
            if let Some(pause) = pause {
                sleep(due.saturating_duration_since(Instant::now())).await;
                due += pause;
            }
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
    let (count, failed) = (u64::try_from(succeeded)?, u64::try_from(written - succeeded)?);
    if count == 0 {
        return Err("no line succeeded".into());
    }
    Ok(Sample { rate, count, failed, ..Sample::default() })
}
