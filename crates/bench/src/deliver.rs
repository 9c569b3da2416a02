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
    figures::{Aim, Party, Ratio, Sample},
    http::{EventStream, HttpConnection, numbered_message, send_request},
    kafka::PARTITIONS,
    kafka::{BareKafka, BenchTopic},
    load::run_on_thread,
    loops::{alternate, show_latency},
    meter::Meter,
    percentiles::{OpenLoop, Percentiles},
    records::{USERS, encode_notification, migrated_user},
    report::Section,
    schedule::Schedule,
    testbed::Testbed,
};

const SENT: &str = "POST /send → event";
const APPENDED: &str = "rdkafka produce → event";
const BARE: &str = "rdkafka produce → consume";
/// How long after the last send its event may come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Rate and length of a round.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct DeliverArgs {
    /// Notifications a second
    #[arg(long, default_value_t = 500, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) deliver_rate: u32,

    /// Seconds that a round of deliveries takes [default: 6; quick: 3]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) deliver_seconds: Option<u32>,
}

pub(crate) async fn measure(testbed: &mut Testbed, args: &DeliverArgs) -> Result<Section> {
    let topic = testbed.create_topic("deliver", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let (consumer, _) = testbed.start_consumer(&topic, 0).await?;
    let (rate, default_seconds) = (args.deliver_rate, if testbed.options.quick { 3 } else { 6 });
    let round = DeliveryRound {
        kafka: testbed.kafka.clone(),
        topic,
        producer: producer.address,
        consumer: consumer.address,
        rate,
        count: usize::try_from(rate * args.deliver_seconds.unwrap_or(default_seconds))?,
    };
    let (rounds, parties) = (testbed.options.rounds(), [SENT, APPENDED, BARE]);
    let samples = alternate("deliver", rounds, &parties, show_latency, async |party| {
        let round = round.clone();
        run_on_thread(async move || {
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

    let roles = ["subject", "subject", "limit"];
    let party = |index: usize| Party::new(parties[index], roles[index], &samples[index]);
    let figures = |index: usize, figure: fn(&Sample) -> Option<f64>| {
        Party::from_values(parties[index], "", samples[index].iter().filter_map(figure), 1)
    };
    let p50 = |index| figures(index, |one| one.p50_ms);
    let p99 = |index| figures(index, |one| one.p99_ms);
    let less_bare = |name| format!("p50 in ms: {name}, less {BARE}");
    let (at_most_1, at_most_2) = (Some(Aim::AtMost(1.0)), Some(Aim::AtMost(2.0)));
    let ratios = vec![
        Ratio::difference(&less_bare(SENT), &p50(0)?, &p50(2)?, at_most_1)?,
        Ratio::new(&format!("p99: {SENT} / {BARE}"), &p99(0)?, &p99(2)?, at_most_2)?,
        Ratio::difference(&less_bare(APPENDED), &p50(1)?, &p50(2)?, None)?,
    ];
    let percentiles =
        (0..3).map(|index| Percentiles::new(parties[index], roles[index], &samples[index]));
    let open_loop = OpenLoop { rate, parties: percentiles.collect::<Result<_>>()? };
    Ok(Section {
        name: "deliver",
        title: format!("from a send to its event, {rate} a second, open loop"),
        unit: "events/s",
        parties: (0..3).map(party).collect::<Result<_>>()?,
        ratios,
        charts: vec![open_loop.chart("deliver", "From a send to its event")],
        open_loop: Some(open_loop),
        notes: vec![
            "Each send begins when it is due, however long the ones before it take; its latency runs from then \
             until the event has been read from the stream. The producer knows the \
             users' names from its cache."
                .into(),
        ],
        ..Section::default()
    })
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
    rate: u32,
    count: usize,
}

impl DeliveryRound {
    /// Sends, and waits for the events on the recipients' streams.
    async fn measure_events(&self, via: SendVia) -> Result<Sample> {
        let mut running = Vec::new();
        for (user, (id, _)) in USERS.into_iter().enumerate() {
            let mut stream = EventStream::open(self.consumer, id).await?;
            let expected = (self.count + USERS.len() - 1 - user) / USERS.len();
            running.push(spawn_local(async move {
                let mut received = Vec::with_capacity(expected);
                while received.len() < expected {
                    received.push((stream.next_number().await?, Instant::now()));
                }
                Ok::<_, std::io::Error>(received)
            }));
        }
        let due_times = self.send_all(via).await?;
        let mut received = Vec::with_capacity(self.count);
        for task in running {
            let task = timeout(EVENT_TIMEOUT, task).await;
            received.extend(task.map_err(|_| "an event never came")???);
        }
        to_sample(&due_times, &received)
    }

    /// Appends and consumes with rdkafka alone.
    async fn measure_bare(&self) -> Result<Sample> {
        let (consumer, expected) = (self.kafka.consume_from_end(&self.topic)?, self.count);
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
        let schedule = Schedule::start(self.rate, u64::try_from(self.count)?, 1);
        let (mut due_times, mut running) = (Vec::new(), Vec::new());
        while let Some((number, due)) = schedule.next_due().await {
            let number = usize::try_from(number)?;
            let (user, message) = (number % USERS.len(), numbered_message(number));
            due_times.push(due);
            running.push(match via {
                SendVia::Http => {
                    let request = send_request(USERS[user].0, &message);
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
        meter.record_success(*due_times.get(*number).ok_or("a foreign notification")?, *at);
    }
    let mut sample = meter.finish()?;
    let last = received.iter().map(|(_, at)| *at).max().unwrap_or(due_times[0]);
    sample.value = sample.count as f64 / (last - due_times[0]).as_secs_f64();
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
