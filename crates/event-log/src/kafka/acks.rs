//! Acknowledgements on their way from librdkafka's thread to the tasks that wait for them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use parking_lot::Mutex;

use super::topic_acks::{AckEpoch, TopicAcks};
use crate::{AppendError, Position};

type Outcome = Result<Position, AppendError>;

/// A topic's epoch and acknowledgements.
pub(super) type TopicState = Mutex<TopicAcks<PendingPosition>>;

/// A record that was written, and waits for its topic's epoch.
pub(super) struct PendingPosition {
    pending: Arc<PendingAck>,
    position: Position,
}

impl PendingPosition {
    pub(super) fn resolve(mut self, epoch: Option<u32>) {
        self.position.epoch = epoch;
        if let Some(waker) = self.pending.finish(Ok(self.position)) {
            waker.wake();
        }
    }
}

/// Resolves when all in-sync replicas have the record.
pub struct KafkaAck(Arc<PendingAck>);

impl std::fmt::Debug for KafkaAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KafkaAck")
    }
}

/// A queued record. librdkafka has a reference to it until it reports the record's delivery.
pub(super) struct PendingAck {
    topic: Arc<TopicState>,
    /// The topic's epoch when the record was queued.
    queued_epoch: Option<u32>,
    state: Mutex<AckState>,
}

enum AckState {
    /// The task that waits for it, if there is one.
    Pending(Option<Waker>),
    Done(Outcome),
}

impl PendingAck {
    /// To be called before the record is queued: an epoch that the topic gets later is not the
    /// record's.
    pub(super) fn new(topic: Arc<TopicState>) -> Arc<Self> {
        let queued_epoch = topic.lock().epoch();
        Arc::new(Self { topic, queued_epoch, state: Mutex::new(AckState::Pending(None)) })
    }

    /// The record was written at this offset. Returns false if it has to wait for the topic's epoch.
    pub(super) fn acknowledge(
        self: &Arc<Self>,
        partition: i32,
        offset: i64,
        wakeups: &AckWakeups,
    ) -> bool {
        let mut acks = self.topic.lock();
        let epoch = match acks.add_ack(partition, offset, self.queued_epoch, Instant::now) {
            AckEpoch::Known(epoch) => epoch,
            AckEpoch::Awaited => {
                let position = Position { partition, offset, epoch: None };
                let waiting = PendingPosition { pending: Arc::clone(self), position };
                acks.add_waiting(waiting, partition, offset, Instant::now());
                return false;
            }
        };
        drop(acks);
        if let Some(waker) = self.finish(Ok(Position { partition, offset, epoch })) {
            wakeups.wake(waker);
        }
        true
    }

    /// The record was not acknowledged.
    pub(super) fn fail(&self, error: AppendError, is_topic_missing: bool, wakeups: &AckWakeups) {
        if is_topic_missing {
            self.topic.lock().add_missing(Instant::now());
        }
        if let Some(waker) = self.finish(Err(error)) {
            wakeups.wake(waker);
        }
    }

    /// Returns the task to wake.
    fn finish(&self, outcome: Outcome) -> Option<Waker> {
        match std::mem::replace(&mut *self.state.lock(), AckState::Done(outcome)) {
            AckState::Pending(waker) => waker,
            AckState::Done(_) => None,
        }
    }
}

impl KafkaAck {
    pub(super) fn new(pending: Arc<PendingAck>) -> Self {
        Self(pending)
    }
}

impl Future for KafkaAck {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match &mut *self.0.state.lock() {
            AckState::Done(outcome) => Poll::Ready(outcome.clone()),
            AckState::Pending(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

/// Wakes the waiting tasks. Each wake-up from librdkafka's thread would go through the runtime's
/// global queue and may cost a system call, so that thread wakes one task, which wakes the others.
pub(super) struct AckWakeups(Mutex<WakeupState>);

#[derive(Default)]
struct WakeupState {
    ready: Vec<Waker>,
    /// The task that wakes the others, while it sleeps.
    sleeping: Option<Waker>,
    has_task: bool,
}

impl AckWakeups {
    /// Starts the task, if there is a runtime. Without one, tasks are woken directly.
    pub(super) fn start() -> Arc<Self> {
        let wakeups = Arc::new(Self(Mutex::default()));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            wakeups.0.lock().has_task = true;
            runtime.spawn(WakeupTask(Arc::downgrade(&wakeups)));
        }
        wakeups
    }

    fn wake(&self, waker: Waker) {
        let mut state = self.0.lock();
        let woken = if state.has_task {
            state.ready.push(waker);
            state.sleeping.take()
        } else {
            Some(waker)
        };
        drop(state);
        if let Some(woken) = woken {
            woken.wake();
        }
    }
}

impl Drop for AckWakeups {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut().sleeping.take() {
            task.wake();
        }
    }
}

/// Ends when the writer is gone.
struct WakeupTask(Weak<AckWakeups>);

impl Future for WakeupTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wakeups) = self.0.upgrade() else { return Poll::Ready(()) };
        let ready = {
            let mut state = wakeups.0.lock();
            state.sleeping = Some(cx.waker().clone());
            std::mem::take(&mut state.ready)
        };
        ready.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

/// The runtime may end before the writer.
impl Drop for WakeupTask {
    fn drop(&mut self) {
        let Some(wakeups) = self.0.upgrade() else { return };
        let ready = {
            let mut state = wakeups.0.lock();
            state.has_task = false;
            std::mem::take(&mut state.ready)
        };
        ready.into_iter().for_each(Waker::wake);
    }
}
