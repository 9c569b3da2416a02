//! `bench deliver`: how long until a sent notification is an event on its recipient's stream, in an
//! open loop at a fixed rate, beside rdkafka's own way from produce to consume.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    task::{LocalSet, spawn_local},
    time::timeout,
};

use crate::{
    Result,
    figures::{Sample, spread},
    http::{EventStream, HttpConnection, numbered_message, send_request},
    kafka::{BareKafka, BenchTopic, PARTITIONS},
    load::{Meter, Ready, measure_process},
    records::{USERS, encode_notification, migrated_user},
    report::{Aim, Section},
    schedule::Schedule,
    send::sender_header,
    testbed::Testbed,
    turns::{show_sample, take_turns},
};

const SENT: &str = "POST /send → event";
const APPENDED: &str = "rdkafka produce → event";
const BARE: &str = "rdkafka produce → consume";
/// How long after the last send its event may come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Notifications a second.
const RATE: u32 = 500;

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("deliver", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let (consumer, _) = testbed.start_consumer(&topic, 0, &[]).await?;
    let options = &testbed.options;
    let round = DeliveryRound {
        kafka: testbed.kafka.clone(),
        topic,
        producer: producer.address,
        consumer: consumer.address,
        header: sender_header(testbed)?,
        rate: options.rate.unwrap_or(RATE),
        // Twice as long as other rounds, because the 99th percentile is what counts.
        round: options.round() * 2,
    };
    let parties = [SENT, APPENDED, BARE];
    let subject = consumer.pid();
    let samples = take_turns("deliver", options.rounds(), &parties, show_sample, async |party| {
        let round = round.clone();
        let pid = if party == 2 { std::process::id() } else { subject };
        measure_process(pid, None, async move |ready: Ready<'_>| {
            ready.begin()?;
            let measuring = async {
                match party {
                    0 => round.measure_events(SendVia::Http).await,
                    1 => round.measure_events(SendVia::Kafka).await,
                    _ => round.measure_bare().await,
                }
            };
            LocalSet::new().run_until(measuring).await
        })
        .await
    });
    let samples = samples.await?;
    let title = format!("{} a second", round.rate);
    let mut section = Section::new("deliver", "from a send to its event on a stream");
    section.add_samples(&title, &parties, &samples);
    section.add_latencies(
        &format!("From a send to its event: latency, {title}"),
        &parties,
        &samples,
    );
    let p50 = |index: usize| spread(&samples[index], Sample::p50_ms);
    let p99 = |index: usize| spread(&samples[index], Sample::p99_ms);
    let later = p50(0).and_then(|one| one.minus(&p50(2)?));
    section.judge(&format!("{SENT}, p50"), BARE, later, "ms more", Aim::AtMost(0.5));
    let ratio = p99(0).and_then(|one| one.divided_by(&p99(2)?));
    section.judge(&format!("{SENT}, p99"), BARE, ratio, "×", Aim::AtMost(1.5));
    section.note(
        "Each send begins when it is due; its latency runs from then until the event has been read from the stream. \
         The processor time is the consumer's, of the last row that of this program.",
    );
    Ok(section)
}

/// How notifications get into the topic.
#[derive(Clone, Copy)]
enum SendVia {
    Http,
    Kafka,
}

/// Addresses and size of a round.
#[derive(Clone)]
struct DeliveryRound {
    kafka: BareKafka,
    topic: BenchTopic,
    producer: SocketAddr,
    consumer: SocketAddr,
    header: String,
    rate: u32,
    round: Duration,
}

impl DeliveryRound {
    fn count(&self) -> usize {
        (f64::from(self.rate) * self.round.as_secs_f64()) as usize
    }

    /// Sends, and waits for the events on the recipients' streams.
    async fn measure_events(&self, via: SendVia) -> Result<Sample> {
        let mut running = Vec::new();
        for (user, (id, _)) in USERS.into_iter().enumerate() {
            let mut stream = EventStream::open(self.consumer, id).await?;
            let expected = (self.count() + USERS.len() - 1 - user) / USERS.len();
            running.push(spawn_local(async move {
                let mut received = Vec::with_capacity(expected);
                while received.len() < expected {
                    received.push((stream.next_number().await?, Instant::now()));
                }
                Ok::<_, std::io::Error>(received)
            }));
        }
        let due_times = self.send_all(via).await?;
        let mut received = Vec::with_capacity(self.count());
        for task in running {
            let task = timeout(EVENT_TIMEOUT, task).await;
            received.extend(task.map_err(|_| "an event never came")???);
        }
        to_sample(&due_times, &received)
    }

    /// Appends and consumes with rdkafka alone.
    async fn measure_bare(&self) -> Result<Sample> {
        let (consumer, expected) = (self.kafka.consume_from_end(&self.topic)?, self.count());
        let consuming =
            thread::spawn(move || BareKafka::read_numbers(&consumer, expected, EVENT_TIMEOUT));
        let due_times = self.send_all(SendVia::Kafka).await?;
        let received = consuming.join().map_err(|_| "the consuming thread panicked")??;
        to_sample(&due_times, &received)
    }

    /// Sends every notification when it is due. Returns the due times by number.
    async fn send_all(&self, via: SendVia) -> Result<Vec<Instant>> {
        let producer = self.kafka.connect_producer(&self.topic)?;
        let idle: Rc<RefCell<Vec<HttpConnection>>> = Rc::default();
        let schedule = Schedule::start(self.rate, u64::try_from(self.count())?, 1);
        let (mut due_times, mut running) = (Vec::new(), Vec::new());
        while let Some((number, due)) = schedule.next_due().await {
            let number = usize::try_from(number)?;
            let (user, message) = (number % USERS.len(), numbered_message(number));
            due_times.push(due);
            running.push(match via {
                SendVia::Http => {
                    let request = send_request(USERS[user].0, &message, &self.header);
                    spawn_local(send_over_idle(Rc::clone(&idle), self.producer, request))
                }
                SendVia::Kafka => {
                    let record = encode_notification(&migrated_user(user)?, &message)?;
                    let delivery = BareKafka::append(&producer, &self.topic, &record)?;
                    spawn_local(async move { Ok(matches!(delivery.await, Ok(Ok(_)))) })
                }
            });
        }
        for task in running {
            if !timeout(EVENT_TIMEOUT, task).await.map_err(|_| "a send was never answered")??? {
                return Err("a send was refused".into());
            }
        }
        Ok(due_times)
    }
}

/// Latencies from the due times, and the rate from the first due time to the last arrival.
fn to_sample(due_times: &[Instant], received: &[(usize, Instant)]) -> Result<Sample> {
    let meter = Meter::start()?;
    for (number, at) in received {
        meter.record(*due_times.get(*number).ok_or("a foreign notification")?, Some(*at));
    }
    let mut sample = meter.finish()?;
    let last = received.iter().map(|(_, at)| *at).max().unwrap_or(due_times[0]);
    sample.rate = sample.count as f64 / (last - due_times[0]).as_secs_f64();
    Ok(sample)
}

/// Sends a request over an idle connection, or a new one. Returns true if the answer was 200.
async fn send_over_idle(
    idle: Rc<RefCell<Vec<HttpConnection>>>,
    address: SocketAddr,
    request: Vec<u8>,
) -> std::io::Result<bool> {
    let kept = idle.borrow_mut().pop();
    let mut connection = match kept {
        Some(kept) => kept,
        None => HttpConnection::connect(address).await?,
    };
    let (status, _) = connection.send_request(&request).await?;
    idle.borrow_mut().push(connection);
    Ok(status == 200)
}
