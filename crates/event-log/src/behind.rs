//! Decides if an assigned partition follows its log or is behind it, from the ends that the brokers
//! tell and the position of the reader. It has no clock and does no I/O, so that its rule is tested
//! as a table.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// A live partition is behind if the brokers have not answered a question of this age, or if an end
/// that they told is not reached this long after the question.
pub(crate) const MAX_UNCONFIRMED: Duration = Duration::from_secs(3);
/// The same for a partition that is being rebuilt. It does not answer anyway, and a client that has just
/// connected takes longer.
const MAX_REBUILD_PAUSE: Duration = Duration::from_secs(10);

/// Why a partition cannot follow its log. The texts are for people and hold no driver's own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BehindCause {
    #[error("the brokers do not answer")]
    Silent,
    #[error("the topic does not exist, or does not have this partition any more")]
    TopicMissing,
    #[error("the brokers do not permit this service to read the topic; check its ACLs")]
    Forbidden,
    #[error("the leader of the partition does not tell its end; see this service's log")]
    EndUnknown,
    #[error(
        "an unfinished transaction hides the records from offset {next} up to {end}; they are read \
         once it is committed or aborted (kafka-transactions.sh finds and aborts it)"
    )]
    OpenTransaction { next: i64, end: i64 },
    #[error(
        "the records from offset {next} up to {end} cannot be read: {problem}. Reading goes on by \
         itself once they can be, or once they are deleted"
    )]
    Unreadable { next: i64, end: i64, problem: ReadProblem },
    #[error("the brokers hold records from offset {next} up to {end}, but do not deliver them")]
    NotDelivered { next: i64, end: i64 },
    #[cfg(feature = "embedded")]
    #[error("the log's file cannot be read; see this service's log")]
    FileUnreadable,
}

/// The client's error for a batch that it cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadProblem {
    #[error("a batch cannot be decompressed, so it is damaged")]
    Compression,
    #[error("a batch does not match its checksum")]
    Checksum,
    #[error("a batch has a codec or a format that this build does not know")]
    Format,
    #[error("the brokers do not permit this service to read the topic")]
    Forbidden,
    #[error("the client reports an error; see this service's log")]
    Other,
}

impl ReadProblem {
    /// True if the client has fetched a batch and cannot read it.
    pub(crate) fn is_bad_batch(self) -> bool {
        matches!(self, Self::Compression | Self::Checksum | Self::Format)
    }
}

/// Why the end of a partition is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndError {
    /// No answer in time.
    Silent,
    TopicMissing,
    Forbidden,
    Other,
}

/// The observations of one assigned partition.
#[derive(Debug)]
pub(crate) struct BehindDetector {
    /// When the newest question about the end was sent that the brokers have answered. At first,
    /// the time of the assignment.
    answered_at: Instant,
    /// Why the questions after that one were not answered.
    error: Option<EndError>,
    /// The oldest end that the brokers told and the reader has not reached, and when the question
    /// was sent.
    target: Option<(Instant, i64)>,
    /// One beyond the last offset that the reader has passed; −1 if it is not known.
    position: i64,
    moved_at: Instant,
    /// The end of the finished transactions, as of the last question about it.
    stable_end: Option<i64>,
    is_behind: bool,
}

impl BehindDetector {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            answered_at: now,
            error: None,
            target: None,
            position: -1,
            moved_at: now,
            stable_end: None,
            is_behind: false,
        }
    }

    /// A question about the end, sent then, was answered or has failed. An answer to a question of
    /// an earlier assignment has no effect.
    pub(crate) fn on_end(&mut self, sent_at: Instant, end: Result<i64, EndError>) {
        if sent_at < self.answered_at {
            return;
        }
        match end {
            Ok(end) => {
                (self.answered_at, self.error) = (sent_at, None);
                if end > self.position && self.target.is_none() {
                    self.target = Some((sent_at, end));
                    self.stable_end = None;
                }
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// The reader has passed everything below `position`.
    pub(crate) fn on_position(&mut self, now: Instant, position: i64) {
        if position > self.position {
            (self.position, self.moved_at) = (position, now);
        }
        self.target = self.target.filter(|(_, end)| *end > self.position);
    }

    /// The brokers told where the finished transactions end.
    pub(crate) fn on_stable_end(&mut self, end: i64) {
        self.stable_end = Some(end);
    }

    /// For how long the reader has not reached an end that was told.
    pub(crate) fn target_age(&self, now: Instant) -> Option<Duration> {
        self.target.map(|(sent_at, _)| now.saturating_duration_since(sent_at))
    }

    /// When the reader last passed a record.
    pub(crate) fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// Since when and why the partition is behind; `None` while it follows. `moved_at` is when the
    /// client last passed a record of any partition: while a partition is rebuilt, others may have
    /// their turn. A partition that was behind is so until it has reached the end.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        is_live: bool,
        moved_at: Instant,
        problem: Option<ReadProblem>,
    ) -> Option<(Instant, BehindCause)> {
        let (limit, moved_at) =
            if is_live { (MAX_UNCONFIRMED, self.moved_at) } else { (MAX_REBUILD_PAUSE, moved_at) };
        let is_over = |at: Instant| now.saturating_duration_since(at) > limit;
        let found = if is_over(self.answered_at) {
            Some((self.answered_at, self.why_unanswered()))
        } else {
            self.target
                .filter(|(sent_at, _)| self.is_behind || (is_over(*sent_at) && is_over(moved_at)))
                .map(|(sent_at, end)| (sent_at, self.why_unread(end, problem)))
        };
        self.is_behind = found.is_some();
        found
    }

    fn why_unanswered(&self) -> BehindCause {
        match self.error {
            None | Some(EndError::Silent) => BehindCause::Silent,
            Some(EndError::TopicMissing) => BehindCause::TopicMissing,
            Some(EndError::Forbidden) => BehindCause::Forbidden,
            Some(EndError::Other) => BehindCause::EndUnknown,
        }
    }

    fn why_unread(&self, end: i64, problem: Option<ReadProblem>) -> BehindCause {
        let next = self.position.max(0);
        let is_hidden = self.stable_end.is_some_and(|stable| stable <= next && stable < end);
        match problem {
            _ if is_hidden => BehindCause::OpenTransaction { next, end },
            Some(problem) => BehindCause::Unreadable { next, end, problem },
            None => BehindCause::NotDelivered { next, end },
        }
    }
}
