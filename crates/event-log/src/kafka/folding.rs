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
    questions::{AssignmentEpoch, MetadataAnswer, MetadataQueries, MetadataQuery},
};
use crate::{
    LogUnreachable, PartitionHandler, Record, RecordAnchor, RecordOutcome, Watermarks,
    offset_tracker::OffsetTracker, reader::ReaderStatus,
};

/// How often the log is looked at for what reading does not show.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often the fold and the ledger are asked whether a partition has to start over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the client may take to go back to a partition's beginning, which needs no broker.
const REWIND_WITHIN: Duration = Duration::from_millis(500);
/// How often it is asked at most whether a gap between two offsets is a loss.
const ASK_OF_GAPS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct PartitionDriver<F> {
    fold: F,
    topic: String,
    partitions: HashMap<i32, Progress>,
    assignments: u64,
    questions: MetadataQueries,
    checked: Instant,
    looked: Instant,
    /// How many partitions the topic had when that was first asked.
    count: Option<usize>,
    signs: Arc<ReaderStatus>,
    /// Of a member of a group: what the group has to be told.
    ledger: Option<Arc<OffsetTracker>>,
}

struct Progress {
    number: u64,
    /// What the fold has from an earlier time: the next record must be this one, or nothing that
    /// the fold has counts.
    proof: Option<RecordAnchor>,
    rewind: Option<Rewind>,
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

/// A partition on its way back to its beginning.
#[derive(Clone, Copy)]
struct Rewind {
    /// The client was told.
    told: bool,
    /// There is a record at this offset or before it, so the first that comes afterwards is none
    /// after it.
    from: i64,
}

impl<F: PartitionHandler> PartitionDriver<F> {
    pub(super) fn new(
        admin: Arc<AdminClient<ClientLog>>,
        topic: &str,
        signs: Arc<ReaderStatus>,
        fold: F,
    ) -> Result<Self, LogUnreachable> {
        let topic = topic.to_owned();
        let questions = MetadataQueries::start(admin, topic.clone())
            .map_err(|error| LogUnreachable(format!("no thread for watermarks: {error}")))?;
        let (partitions, now) = (HashMap::new(), Instant::now());
        Ok(Self {
            fold,
            topic,
            partitions,
            assignments: 0,
            questions,
            checked: now,
            looked: now,
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
    pub(super) fn tell(&mut self, ledger: Arc<OffsetTracker>) {
        self.ledger = Some(ledger);
    }

    /// Whether it is this one by which the group is told.
    pub(super) fn tells(&self, ledger: &Arc<OffsetTracker>) -> bool {
        self.ledger.as_ref().is_some_and(|told| Arc::ptr_eq(told, ledger))
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Tells how far each partition was folded.
    pub(super) fn tell_progress(&self) {
        if let Some(ledger) = &self.ledger {
            let partitions = self.partitions.iter();
            ledger.record_progress(
                partitions.filter_map(|(number, progress)| Some((*number, progress.next?))),
            );
        }
    }

    /// Returns where the client is to begin.
    pub(super) fn assign(&mut self, partition: i32) -> Offset {
        self.revoke(&[partition]);
        self.assignments += 1;
        let assignment = AssignmentEpoch { partition, number: self.assignments };
        tracing::info!(kafka.topic = self.topic, kafka.partition = partition, "partition assigned");
        let proof = self.fold.on_assigned(partition).anchor();
        let (next, high, live, doubted, gap, asked) = (None, None, false, false, None, None);
        let (number, rewind) = (assignment.number, None);
        let progress = Progress { number, proof, rewind, next, high, live, doubted, gap, asked };
        self.partitions.insert(partition, progress);
        if let Some(ledger) = &self.ledger {
            ledger.begin_assignment(partition, proof.map(|mark| mark.offset + 1));
        }
        self.questions.ask(MetadataQuery::Extent(assignment));
        // With the record that proves the rest: it is there, and it is the same.
        proof.map_or(Offset::Beginning, |mark| Offset::Offset(mark.offset))
    }

    /// Returns what the group is still to be told of them: how far it is.
    pub(super) fn revoke(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let mut revoked = Vec::new();
        // First nobody may be answered from any of them; the rest may take a moment.
        for partition in partitions {
            if let Some(progress) = self.partitions.remove(partition) {
                self.fold.on_revoked(*partition);
                revoked.push((*partition, progress.next));
                tracing::info!(
                    kafka.topic = self.topic,
                    kafka.partition = partition,
                    "partition revoked",
                );
            }
        }
        let Some(ledger) = &self.ledger else { return Vec::new() };
        let told = |(partition, next)| Some((partition, ledger.end_assignment(partition, next)?));
        revoked.into_iter().filter_map(told).collect()
    }

    /// The assignment still holds.
    pub(super) fn tick(&mut self) {
        self.fold.renew_lease();
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
        if let Some(rewind) = &mut progress.rewind {
            if !rewind.told || offset > rewind.from {
                // Not from the beginning; whatever became of that, it is asked for once more.
                *rewind = Rewind { told: false, from: rewind.from.max(offset) };
                return;
            }
            progress.rewind = None;
        }
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
        if let Some(proof) = self.partitions.get_mut(&partition).and_then(|p| p.proof.take()) {
            return self.prove(proof, &record);
        }
        if let RecordOutcome::Poison(reason) = self.fold.on_record(&record)
            && let Some(ledger) = &self.ledger
        {
            ledger.add_poison(&record, &reason);
        }
        self.advance(partition, offset);
    }

    fn advance(&mut self, partition: i32, offset: i64) {
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        progress.next = Some(offset + 1);
        if !progress.live && progress.next >= progress.high && progress.high.is_some() {
            progress.live = true;
            self.fold.on_live(partition);
        }
    }

    /// The first record after an assignment, where there must be the one that the fold has.
    fn prove(&mut self, proof: RecordAnchor, record: &Record<'_>) {
        if record.anchor() == proof {
            return self.advance(record.partition, record.offset);
        }
        let why = if record.offset == proof.offset {
            "the log has another record in the place of its last one: the topic was made again, or \
             this is another Kafka"
        } else {
            "its last record is not in the log any more"
        };
        self.refuse(record.partition, why, record.offset);
    }

    /// The end of the partition was reached: everything that is there has been given to us.
    fn caught_up(&mut self, partition: i32) {
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        if progress.rewind.is_some_and(|rewind| !rewind.told) {
            return;
        }
        if let Some(proof) = progress.proof {
            return self.refuse(partition, "the log ends before its last record", proof.offset - 1);
        }
        progress.rewind = None;
        if !progress.live {
            progress.live = true;
            self.fold.on_live(partition);
        }
    }

    /// What the fold has of this partition does not count: it starts over. The client has come as
    /// far as `from`.
    fn refuse(&mut self, partition: i32, why: &str, from: i64) {
        tracing::warn!(
            kafka.topic = self.topic,
            kafka.partition = partition,
            "what was kept of this partition is not used ({why}); it is read from its beginning",
        );
        self.rewind(partition, why, from);
    }

    fn rewind(&mut self, partition: i32, why: &str, from: i64) {
        self.fold.on_reset(partition, why);
        self.assign(partition);
        if let Some(progress) = self.partitions.get_mut(&partition) {
            progress.proof = None;
            progress.rewind = Some(Rewind { told: false, from });
        }
    }

    /// Where the client is in this partition: one beyond the last record that came.
    fn reached(&self, partition: i32) -> Option<i64> {
        let progress = self.partitions.get(&partition)?;
        let proof = || progress.proof.map(|mark| mark.offset);
        Some(progress.next.or_else(proof).unwrap_or(0))
    }

    /// Starts those over that cannot stay as they are.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        if let Some(partition) = self.fold.take_invalidated()
            && let Some(reached) = self.reached(partition)
        {
            self.rewind(partition, "the other topic has shown that it does not count", reached - 1);
        }
        if let Some(partition) = self.ledger.as_ref().and_then(|ledger| ledger.next_behind())
            && let Some(reached) = self.reached(partition)
        {
            let why = "the group has not been told of all that it holds, so dead letters might be \
                       missed";
            self.refuse(partition, why, reached - 1);
        }
    }

    /// Has the client go back where that is due.
    fn go_back<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        for (partition, progress) in &mut self.partitions {
            let Some(rewind) = progress.rewind.as_mut().filter(|rewind| !rewind.told) else {
                continue;
            };
            let start = Offset::Beginning;
            match consumer.seek(&self.topic, *partition, start, REWIND_WITHIN) {
                Ok(()) => rewind.told = true,
                // Not begun yet, after an assignment: asked again at the next poll.
                Err(error) => tracing::debug!(
                    kafka.topic = self.topic, kafka.partition = partition, %error,
                    "cannot go back to the beginning of the partition yet",
                ),
            }
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
        self.fold.on_reset(partition, why);
        self.assign(partition);
        if let Some(progress) = self.partitions.get_mut(&partition) {
            progress.proof = None;
        }
    }

    /// Asks what is due, and hears what was answered.
    pub(super) fn watch<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        while let Some(answer) = self.questions.answer() {
            match answer {
                MetadataAnswer::Partitions(count) => self.counted(count),
                MetadataAnswer::Watermarks(question, extent) => self.hear(question, extent),
            }
        }
        self.look();
        self.go_back(consumer);
        for (partition, progress) in &mut self.partitions {
            if let Some((from, to)) = progress.gap
                && progress.asked.is_none_or(|at| at.elapsed() >= ASK_OF_GAPS_EVERY)
            {
                (progress.gap, progress.asked) = (None, Some(Instant::now()));
                let assignment = AssignmentEpoch { partition: *partition, number: progress.number };
                self.questions.ask(MetadataQuery::Gap { assignment, from, to });
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
            self.questions.ask(MetadataQuery::Partitions);
        }
        for (partition, progress) in &self.partitions {
            if let Some(next) = progress.next {
                let assignment = AssignmentEpoch { partition: *partition, number: progress.number };
                self.questions.ask(MetadataQuery::Still { assignment, next });
            }
        }
    }

    fn hear(&mut self, question: MetadataQuery, extent: Watermarks) {
        let (MetadataQuery::Extent(assignment)
        | MetadataQuery::Still { assignment, .. }
        | MetadataQuery::Gap { assignment, .. }) = question
        else {
            return;
        };
        let partition = assignment.partition;
        let Some(progress) = self.partitions.get_mut(&partition) else { return };
        if progress.number != assignment.number {
            return;
        }
        match question {
            MetadataQuery::Extent(_) => {
                let Watermarks { low, high } = extent;
                progress.high = Some(high);
                self.fold.on_watermarks(partition, extent);
                // A busy partition may never say that its end was reached, so the watermark
                // counts too.
                let there = progress.proof.is_none()
                    && (low == high || progress.next.is_some_and(|next| next >= high));
                if !progress.live && there {
                    progress.live = true;
                    self.fold.on_live(partition);
                }
            }
            MetadataQuery::Still { next, .. } if extent.high >= next => progress.doubted = false,
            MetadataQuery::Still { next, .. } if !progress.doubted => {
                // Asked once more: after an election a replica may know less for a moment.
                progress.doubted = true;
                self.questions.ask(MetadataQuery::Still { assignment, next });
            }
            MetadataQuery::Still { next, .. } => {
                self.start_over(partition, "its end is lower than it was");
                if let Some(progress) = self.partitions.get_mut(&partition) {
                    progress.rewind = Some(Rewind { told: false, from: next - 1 });
                }
            }
            MetadataQuery::Gap { from, to, .. } => {
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
            MetadataQuery::Partitions => {}
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
