//! Messages of librdkafka as records, without a copy.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use smallvec::SmallVec;

use crate::Record;

pub(super) fn read_record<'m>(message: &'m BorrowedMessage<'_>) -> Record<'m> {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
        headers: read_headers(message),
    }
}

/// The headers of a message. rdkafka panics at a header name that is not UTF-8; a foreign record
/// must not end this thread, so such a record is read as if it had no headers.
fn read_headers<'m>(message: &'m BorrowedMessage<'_>) -> SmallVec<[(&'m str, &'m [u8]); 8]> {
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
