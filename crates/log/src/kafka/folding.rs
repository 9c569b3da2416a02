//! The fold, and how far it is in each partition that it was given. Whoever polls, a member of a
//! group or a follower, gives it what was polled.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers as _, Message as _},
    types::RDKafkaErrorCode,
};
use smallvec::SmallVec;

use super::{
    context::ClientLog,
    ledger::Ledger,
    questions::{Answer, Assignment, Question, Questions},
};
use crate::{Extent, Fold, Record, Unreachable, Verdict, poison::Poison, reader::Signs};

/// How often the log is looked at for what reading does not show.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often it is asked at most whether a gap between two offsets is a loss.
const ASK_OF_GAPS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Folding<F> {
    fold: F,
    topic: String,
    partitions: HashMap<i32, Progress>,
    assignments: u64,
    questions: Questions,
    checked: Instant,
    /// How many partitions the topic had when that was first asked.
    count: Option<usize>,
    signs: Arc<Signs>,
    /// Of a member of a group: what the group has to be told.
    ledger: Option<Arc<Ledger>>,
}

struct Progress {
    number: u64,
    /// One beyond the last record that was folded; none before the first.
    next: Option<i64>,
    high: Option<i64>,
    live: bool,
    /// The log's end was below what was read; once may be a replica that is late.
    doubted: bool,
    /// The widest gap between two offsets since that was last asked about, and when that was.
    gap: Option<(i64, i64)>,
    asked: Option<Instant>,
}

impl<F: Fold> Folding<F> {
    pub(super) fn new(
        admin: Arc<AdminClient<ClientLog>>,
        topic: &str,
        signs: Arc<Signs>,
        fold: F,
    ) -> Result<Self, Unreachable> {
        let topic = topic.to_owned();
        let questions = Questions::start(admin, topic.clone())
            .map_err(|error| Unreachable(format!("no thread for watermarks: {error}")))?;
        let (partitions, checked) = (HashMap::new(), Instant::now());
        Ok(Self {
            fold,
            topic,
            partitions,
            assignments: 0,
            questions,
            checked,
            count: None,
            signs,
            ledger: None,
        })
    }

    pub(super) fn is_assigned(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub(super) fn assigned(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// From now on the group is told by this one.
    pub(super) fn tell(&mut self, ledger: Arc<Ledger>) {
        self.ledger = Some(ledger);
    }

    /// Whether it is this one by which the group is told.
    pub(super) fn tells(&self, ledger: &Arc<Ledger>) -> bool {
        self.ledger.as_ref().is_some_and(|told| Arc::ptr_eq(told, ledger))
    }

    /// Tells how far each partition was folded.
    pub(super) fn tell_progress(&self) {
        if let Some(ledger) = &self.ledger {
            let partitions = self.partitions.iter();
            ledger.progress(
                partitions.filter_map(|(number, progress)| Some((*number, progress.next?))),
            );
        }
    }

    pub(super) fn assign(&mut self, partition: i32) {
        self.revoke(&[partition]);
        self.assignments += 1;
        let assignment = Assignment { partition, number: self.assignments };
        let (next, high, live, doubted, gap, asked) = (None, None, false, false, None, None);
        let progress =
            Progress { number: assignment.number, next, high, live, doubted, gap, asked };
        self.partitions.insert(partition, progress);
        tracing::info!(kafka.topic = self.topic, kafka.partition = partition, "partition assigned");
        self.fold.assigned(partition);
        if let Some(ledger) = &self.ledger {
            ledger.assigned(assignment);
        }
        self.questions.ask(Question::Extent(assignment));
    }

    /// Returns what the group is still to be told of them: how far it is.
    pub(super) fn revoke(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let mut revoked = Vec::new();
        // First nobody may be answered from any of them; the rest may take a moment.
        for partition in partitions {
            if let Some(progress) = self.partitions.remove(partition) {
                self.fold.revoked(*partition);
                revoked.push((*partition, progress.next));
                tracing::info!(
                    kafka.topic = self.topic,
                    kafka.partition = partition,
                    "partition revoked",
                );
            }
        }
        let Some(ledger) = &self.ledger else { return Vec::new() };
        let told = |(partition, next)| Some((partition, ledger.revoked(partition, next)?));
        revoked.into_iter().filter_map(told).collect()
    }

    /// The assignment still holds.
    pub(super) fn tick(&mut self) {
        self.fold.tick();
    }

    /// Takes what was polled.
    ///
    /// # Errors
    /// When the client has failed for good.
    pub(super) fn take(
        &mut self,
        polled: Option<KafkaResult<BorrowedMessage<'_>>>,
    ) -> Result<(), RDKafkaErrorCode> {
        match polled {
            Some(Ok(message)) => self.record(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => self.caught_up(partition),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(code),
            Some(Err(error)) => complain(&error),
            None => {}
        }
        Ok(())
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        // A record that was fetched before a revocation may still come; it is not ours.
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        if let Some(next) = progress.next {
            if offset < next {
                self.start_over(partition, "its records began again");
            } else if progress.gap.map_or(offset > next, |(from, to)| offset - next > to - from) {
                progress.gap = Some((next, offset));
            }
        }
        let record = Record {
            partition,
            offset,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload(),
            headers: headers(message),
        };
        if let Verdict::Poison(reason) = self.fold.record(&record)
            && let Some(ledger) = &self.ledger
            && ledger.wants(partition, offset)
        {
            ledger.poison(Poison::of(&record, &self.topic, ledger.group(), &reason));
        }
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        progress.next = Some(offset + 1);
        if !progress.live && progress.next >= progress.high && progress.high.is_some() {
            progress.live = true;
            self.fold.live(partition);
        }
    }

    /// The end of the partition was reached: everything that is there has been given to us.
    fn caught_up(&mut self, partition: i32) {
        if let Some(progress) = self.partitions.get_mut(&partition)
            && !progress.live
        {
            progress.live = true;
            self.fold.live(partition);
        }
    }

    /// The partition is not the log that was read so far: what was folded of it is void.
    fn start_over(&mut self, partition: i32, why: &str) {
        tracing::error!(
            kafka.topic = self.topic,
            kafka.partition = partition,
            "the log of this partition ends before what was read of it already ({why}). Was the \
             topic deleted and made again, or did a broker lose records? What was read is \
             forgotten, and the partition is read anew from its beginning",
        );
        self.assign(partition);
    }

    /// Asks what is due, and hears what was answered.
    pub(super) fn watch<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        while let Some(answer) = self.questions.answer() {
            match answer {
                Answer::Partitions(count) => self.counted(count),
                Answer::Watermarks(question, extent) => self.hear(question, extent, consumer),
            }
        }
        for (partition, progress) in &mut self.partitions {
            if let Some((from, to)) = progress.gap
                && progress.asked.is_none_or(|at| at.elapsed() >= ASK_OF_GAPS_EVERY)
            {
                (progress.gap, progress.asked) = (None, Some(Instant::now()));
                let assignment = Assignment { partition: *partition, number: progress.number };
                self.questions.ask(Question::Gap { assignment, from, to });
            }
        }
        if self.checked.elapsed() >= CHECK_EVERY || self.count.is_none() {
            self.check();
        }
    }

    fn check(&mut self) {
        self.checked = Instant::now();
        // Asked again until it is known, but not more often than this.
        self.count.get_or_insert(0);
        if self.ledger.is_some() {
            self.questions.ask(Question::Partitions);
        }
        for (partition, progress) in &self.partitions {
            if let Some(next) = progress.next {
                let assignment = Assignment { partition: *partition, number: progress.number };
                self.questions.ask(Question::Still { assignment, next });
            }
        }
    }

    fn hear<C: ConsumerContext>(
        &mut self,
        question: Question,
        extent: Extent,
        consumer: &BaseConsumer<C>,
    ) {
        let (Question::Extent(assignment)
        | Question::Still { assignment, .. }
        | Question::Gap { assignment, .. }) = question
        else {
            return;
        };
        let partition = assignment.partition;
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        if progress.number != assignment.number {
            return;
        }
        match question {
            Question::Extent(_) => {
                let Extent { low, high } = extent;
                progress.high = Some(high);
                self.fold.extent(partition, extent);
                // A busy partition may never say that its end was reached, so the watermark
                // counts too.
                if !progress.live && (low == high || progress.next.is_some_and(|next| next >= high))
                {
                    progress.live = true;
                    self.fold.live(partition);
                }
            }
            Question::Still { next, .. } if extent.high >= next => progress.doubted = false,
            Question::Still { next, .. } if !progress.doubted => {
                // Asked once more: after an election a replica may know less for a moment.
                progress.doubted = true;
                self.questions.ask(Question::Still { assignment, next });
            }
            Question::Still { .. } => {
                self.start_over(partition, "its end is lower than it was");
                let start = Offset::Beginning;
                if let Err(error) = consumer.seek(&self.topic, partition, start, Duration::ZERO) {
                    tracing::error!(
                        kafka.topic = self.topic, kafka.partition = partition, %error,
                        "cannot go back to the beginning of the partition",
                    );
                }
            }
            Question::Gap { from, to, .. } => {
                // Other gaps are ordinary: compaction and transactions leave them.
                let missing = extent.low.min(to) - from;
                if missing > 0 {
                    tracing::error!(
                        kafka.topic = self.topic,
                        kafka.partition = partition,
                        kafka.offset = from,
                        missing,
                        "retention removed records that were not read yet: {missing} offsets are \
                         missing",
                    );
                }
            }
            Question::Partitions => {}
        }
    }

    fn counted(&mut self, count: usize) {
        let known = *self.count.get_or_insert(count);
        if known == 0 {
            self.count = Some(count);
        } else if count != 0 && count != known {
            let trouble = format!(
                "topic {} had {known} partitions at start and has {count} now. A user's inbox \
                 lives in a partition that follows from this number: move to a new topic, or \
                 restart every service with --partitions {count} and lose sight of what is in \
                 the partitions of before",
                self.topic
            );
            let mut told = self.signs.trouble.lock();
            if told.as_ref() != Some(&trouble) {
                tracing::error!(kafka.topic = self.topic, "{trouble}");
                *told = Some(trouble);
            }
        }
    }
}

fn complain(error: &KafkaError) {
    match error.rdkafka_error_code() {
        // Told by the client's own log already, once for each broker and each time.
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve,
        ) => tracing::debug!(%error, "Kafka"),
        _ => tracing::warn!(%error, "Kafka consumer"),
    }
}

/// The headers of a message. rdkafka panics at a header name that is not UTF-8, and a record from
/// outside must not end this thread: such a record is read as if it had none.
fn headers<'m>(message: &'m BorrowedMessage<'_>) -> SmallVec<[(&'m str, &'m [u8]); 8]> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let headers = message.headers()?;
        Some(headers.iter().filter_map(|header| Some((header.key, header.value?))).collect())
    }));
    match read {
        Ok(headers) => headers.unwrap_or_default(),
        Err(_) => {
            tracing::warn!(
                kafka.partition = message.partition(),
                kafka.offset = message.offset(),
                "a header's name is not UTF-8; the record is read without headers",
            );
            SmallVec::new()
        }
    }
}
