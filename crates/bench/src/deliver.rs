//! `bench deliver`: how long until a notification that was sent is an event on its recipient's
//! stream, in an open loop at a fixed rate, beside rdkafka's own way from produce to consume.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use model::{User, UserId};
use rdkafka::producer::FutureProducer;
use tokio::{
    task::LocalSet,
    time::{sleep_until, timeout},
};

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    kafka::Kafka,
    listeners::{Listener, message},
    load::{Connection, Meter, post_form},
    records,
    report::Section,
    rounds::alternate,
    send::USERS,
    site::Site,
};

const SENT: &str = "POST /send → event";
const APPENDED: &str = "rdkafka produce → event";
const BARE: &str = "rdkafka produce → consume";
/// How long after the last send its event may take.
const GRACE: Duration = Duration::from_secs(15);

/// How much is sent.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct DeliverArgs {
    /// Notifications a second
    #[arg(long, default_value_t = 500, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Seconds that a round of deliveries takes [default: 8; quick: 3]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) deliver_seconds: Option<u32>,
}

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &DeliverArgs) -> Result<Section> {
    let topic = site.topic("deliver").await?;
    let producer = site.producer(&topic).await?;
    let mut consumer = site.consumer(&topic)?;
    consumer.live(0).await?;
    let seconds = args.deliver_seconds.unwrap_or(if site.options.quick { 3 } else { 8 });
    let round = Round {
        kafka: site.kafka.clone(),
        topic,
        producer: producer.address,
        consumer: consumer.address,
        rate: args.rate,
        count: usize::try_from(args.rate * seconds)?,
    };
    let show = |sample: &Sample| {
        let ms = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
        format!("p50 {:.2} ms, p99 {:.2} ms", ms(sample.p50_ms), ms(sample.p99_ms))
    };
    let parties = [SENT, APPENDED, BARE];
    let samples = alternate("deliver", site.options.rounds(), &parties, show, async |party| {
        let round = round.clone();
        tokio::task::spawn_blocking(move || match party {
            0 => round.measured(Way::Send),
            1 => round.measured(Way::Append),
            _ => round.bare(),
        })
        .await?
    });
    let samples = samples.await?;

    let nothing = "no round was measured";
    let party =
        |index: usize, role| Party::new(parties[index], role, &samples[index]).ok_or(nothing);
    let quantile = |index: usize, figure: fn(&Sample) -> Option<f64>| {
        let values = samples[index].iter().filter_map(figure).map(|ms| Sample::of(ms, 1));
        Party::new(parties[index], "", &values.collect::<Vec<_>>()).ok_or(nothing)
    };
    let (p50, p99) = (|one: &Sample| one.p50_ms, |one: &Sample| one.p99_ms);
    let ratios = [
        Ratio::difference(
            &format!("p50 in ms: {SENT}, less {BARE}"),
            &quantile(0, p50)?,
            &quantile(2, p50)?,
            Some(Aim::AtMost(1.0)),
        ),
        Ratio::new(
            &format!("p99: {SENT} / {BARE}"),
            &quantile(0, p99)?,
            &quantile(2, p99)?,
            Some(Aim::AtMost(2.0)),
        ),
        Ratio::difference(
            &format!("p50 in ms: {APPENDED}, less {BARE}"),
            &quantile(1, p50)?,
            &quantile(2, p50)?,
            None,
        ),
    ];
    Ok(Section {
        name: "deliver",
        title: format!("from a send to its event, {} a second, open loop", args.rate),
        unit: "events/s",
        parties: vec![party(0, "subject")?, party(1, "subject")?, party(2, "limit")?],
        ratios: ratios.into_iter().flatten().collect(),
        notes: vec![
            "Each send begins when its time has come, however long the ones before it take; its latency ends \
             when the event has been read from the stream. The producer knows the \
             users' names from its cache."
                .into(),
        ],
    })
}

#[derive(Clone, Copy)]
enum Way {
    Send,
    Append,
}

/// What one round needs.
#[derive(Clone)]
struct Round {
    kafka: Kafka,
    topic: String,
    producer: SocketAddr,
    consumer: SocketAddr,
    rate: u32,
    count: usize,
}

impl Round {
    /// Sends, and listens for the events.
    fn measured(self, way: Way) -> Result<Sample> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let mut listeners = Vec::new();
            for (id, _) in USERS {
                listeners.push(Listener::open(self.consumer, id).await?);
            }
            let append = self.kafka.appender(&self.topic)?;
            let times = Rc::new(RefCell::new(Vec::with_capacity(self.count)));
            let meter = Rc::new(Meter::start(GRACE)?);
            let mut running = Vec::new();
            for (user, mut listener) in listeners.into_iter().enumerate() {
                let (times, meter) = (Rc::clone(&times), Rc::clone(&meter));
                let expected = (self.count + USERS.len() - 1 - user) / USERS.len();
                running.push(tokio::task::spawn_local(async move {
                    for _ in 0..expected {
                        let number = listener.next().await?;
                        let at: Option<Instant> = times.borrow().get(number).copied();
                        meter.note(
                            at.ok_or_else(|| std::io::Error::other("a foreign event"))?,
                            true,
                        );
                    }
                    Ok::<_, std::io::Error>(())
                }));
            }
            self.send_all(way, &append, &times).await?;
            for task in running {
                timeout(GRACE, task).await.map_err(|_| "an event never came")???;
            }
            Rc::into_inner(meter).ok_or("still in use")?.finish()
        })
    }

    /// Appends, and consumes.
    fn bare(self) -> Result<Sample> {
        let consumer = self.kafka.at_end(&self.topic)?;
        let expected = self.count;
        let consuming = std::thread::spawn(move || Kafka::numbers(&consumer, expected, GRACE));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let times = LocalSet::new().block_on(&runtime, async {
            let append = self.kafka.appender(&self.topic)?;
            let times = Rc::new(RefCell::new(Vec::with_capacity(self.count)));
            self.send_all(Way::Append, &append, &times).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times.take())
        })?;
        let seen = consuming.join().map_err(|_| "the consuming thread panicked")??;
        let meter = Meter::start(GRACE)?;
        let (first, mut last) = (*times.first().ok_or("nothing was sent")?, Instant::now());
        for (number, at) in seen {
            meter.note_at(*times.get(number).ok_or("a foreign record")?, at);
            last = at;
        }
        let mut sample = meter.finish()?;
        // The meter was started when all was over.
        #[allow(clippy::cast_precision_loss)] // counts of a few seconds
        let rate = sample.count as f64 / (last - first).as_secs_f64();
        sample.value = rate;
        Ok(sample)
    }

    /// Sends everything, each at its time; notes when it did.
    async fn send_all(
        &self,
        way: Way,
        append: &FutureProducer,
        times: &Rc<RefCell<Vec<Instant>>>,
    ) -> Result<()> {
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let start = tokio::time::Instant::now();
        let mut running = Vec::with_capacity(self.count);
        for number in 0..self.count {
            sleep_until(start + Duration::from_secs(1) * u32::try_from(number)? / self.rate).await;
            let (id, name) = USERS[number % USERS.len()];
            times.borrow_mut().push(Instant::now());
            match way {
                Way::Send => {
                    let form = format!("from_id=2&to_id={id}&message={}", message(number));
                    let (request, address) = (post_form("/send", &form), self.producer);
                    let idle = Rc::clone(&idle);
                    running.push(tokio::task::spawn_local(async move {
                        let kept = idle.borrow_mut().pop();
                        let mut connection = match kept {
                            Some(kept) => kept,
                            None => Connection::open(address).await?,
                        };
                        let (status, _) = connection.exchange(&request).await?;
                        idle.borrow_mut().push(connection);
                        Ok::<_, std::io::Error>(status == 200)
                    }));
                }
                Way::Append => {
                    let user = User { id: UserId::new(id)?, name: name.into() };
                    let record = records::notification(&user, &message(number))?;
                    let delivery = Kafka::append(append, &self.topic, &record)?;
                    running.push(tokio::task::spawn_local(async move {
                        Ok(matches!(delivery.await, Ok(Ok(_))))
                    }));
                }
            }
        }
        for task in running {
            if !timeout(GRACE, task).await.map_err(|_| "a send was never answered")??? {
                return Err("a send was refused".into());
            }
        }
        Ok(())
    }
}
