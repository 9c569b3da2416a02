//! `bench bulk`: lines posted to /send over one connection, as fast as they are answered, beside a
//! bare rdkafka loop that writes the same records to the same topic.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use model::{User, UserId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Result,
    effort::Effort,
    figures::{Aim, Party, Ratio, Sample, cpu_each},
    options::LoadArgs,
    records,
    report::Section,
    rounds::alternate,
    send::{MESSAGE, USERS},
    site::Site,
    subjects::Service,
};

const PRODUCER: &str = "producer";
const BARE: &str = "bare rdkafka loop";
/// Lines that are written at a time.
const LINES: usize = 256;
/// Records that the bare loop has in flight: as many as the producer has lines.
const IN_FLIGHT: usize = 4096;
/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(15);

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &LoadArgs) -> Result<Section> {
    let topic = site.topic("bulk").await?;
    let producer = site.producer(&topic).await?;
    let (lines, mut same) = (some_lines()?, Vec::new());
    for (id, name) in USERS {
        let user = User { id: UserId::new(id)?, name: name.into() };
        same.push(records::notification(&user, MESSAGE)?);
    }
    let round = args.round(site.options.quick);
    let effort = Effort { connections: IN_FLIGHT, round, rate: None };
    let show = |sample: &Sample| format!("{:.0} records/s", sample.value);
    let samples =
        alternate("bulk", site.options.rounds(), &[PRODUCER, BARE], show, async |party| {
            if party == 1 {
                return site.kafka.append_loop(&topic, &same, &effort).await;
            }
            post_lines(&producer, &lines, round).await
        });
    let samples = samples.await?;

    let nothing = "no round was measured";
    let subject = Party::new(PRODUCER, "subject", &samples[0]).ok_or(nothing)?;
    let limit = Party::new(BARE, "limit", &samples[1]).ok_or(nothing)?;
    let name = format!("{PRODUCER} / {BARE}");
    let ratios =
        Ratio::new(&name, &subject, &limit, Some(Aim::AtLeast(0.80))).into_iter().collect();
    Ok(Section {
        name: "bulk",
        title: format!("POST /send of lines, acks=all, one connection, {IN_FLIGHT} in flight"),
        unit: "records/s",
        parties: vec![subject, limit],
        ratios,
        notes: vec![
            "The bare loop's records are encoded beforehand and it answers nobody: no HTTP, no JSON, no users. \
             Both share two processors with the broker."
                .into(),
        ],
        ..Section::default()
    })
}

/// One round of lines, with the processor time that the producer took for each.
pub(crate) async fn post_lines(producer: &Service, lines: &str, round: Duration) -> Result<Sample> {
    let (address, lines, before) = (producer.address, lines.to_owned(), producer.cpu());
    let mut sample = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(post(address, &lines, round))
    })
    .await??;
    sample.cpu_us = cpu_each(before, producer.cpu(), sample.count);
    Ok(sample)
}

/// So many lines, for those whom the migration makes.
pub(crate) fn some_lines() -> Result<String> {
    let (mut lines, message) = (String::new(), serde_json::to_string(MESSAGE)?);
    for (id, _) in USERS.iter().cycle().take(LINES) {
        lines.push_str(&format!("{{\"from_id\":2,\"to_id\":{id},\"message\":{message}}}\n"));
    }
    Ok(lines)
}

/// Posts lines for so long, and counts the answers that say 200.
async fn post(address: SocketAddr, lines: &str, round: Duration) -> Result<Sample> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let head = "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    let (mut answers, mut requests) = stream.split();
    let started = Instant::now();
    let writing = async {
        let mut written = 0;
        while started.elapsed() < round {
            requests.write_all(chunk.as_bytes()).await?;
            written += LINES;
        }
        requests.write_all(b"0\r\n\r\n").await?;
        Ok::<_, std::io::Error>(written)
    };
    let reading = async {
        let (mut buffer, mut well, mut last) = (vec![0; 64 << 10], 0, Vec::new());
        while !last.ends_with(b"0\r\n\r\n") {
            match answers.read(&mut buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => {
                    let text = &buffer[..length];
                    // The list in each line's `"sent":[…]`.
                    well += text.iter().filter(|byte| **byte == b'[').count();
                    last.extend_from_slice(&text[length.saturating_sub(5)..]);
                    last.drain(..last.len().saturating_sub(5));
                }
            }
        }
        Ok(well)
    };
    let both = async { tokio::try_join!(writing, reading) };
    let (written, well) = timeout(round + GRACE, both).await.map_err(|_| "no end")??;
    let took = started.elapsed();
    #[allow(clippy::cast_precision_loss)] // counts of a few seconds
    let mut sample = Sample::of(well as f64 / took.as_secs_f64(), u64::try_from(well)?);
    sample.failed = u64::try_from(written - well)?;
    Ok(sample)
}
