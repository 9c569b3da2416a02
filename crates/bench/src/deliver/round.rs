//! One round of deliveries: sends at a fixed rate, and listens for what comes of them.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use model::{User, UserId};
use rdkafka::producer::FutureProducer;
use tokio::{task::LocalSet, time::timeout};

use crate::{
    Result,
    connection::{Connection, post_form},
    figures::Sample,
    kafka::{Kafka, Topic},
    listeners::{Listener, message},
    meter::Meter,
    pace::Pace,
    records,
    send::USERS,
};

/// How long after the last send its event may take.
const GRACE: Duration = Duration::from_secs(15);

/// How notifications come to be.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Send,
    Append,
}

/// What one round needs.
#[derive(Clone)]
pub(super) struct Round {
    pub(super) kafka: Kafka,
    pub(super) topic: Topic,
    pub(super) producer: SocketAddr,
    pub(super) consumer: SocketAddr,
    pub(super) rate: u32,
    pub(super) count: usize,
}

impl Round {
    /// Sends, and listens for the events.
    pub(super) fn measured(self, way: Way) -> Result<Sample> {
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
    pub(super) fn bare(self) -> Result<Sample> {
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

    /// Sends everything, each at its time; notes when that was.
    async fn send_all(
        &self,
        way: Way,
        append: &FutureProducer,
        times: &Rc<RefCell<Vec<Instant>>>,
    ) -> Result<()> {
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let pace = Pace::start(self.rate, u64::try_from(self.count)?, 1);
        let mut running = Vec::with_capacity(self.count);
        while let Some((number, due)) = pace.next().await {
            let number = usize::try_from(number)?;
            let (id, name) = USERS[number % USERS.len()];
            times.borrow_mut().push(due);
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
