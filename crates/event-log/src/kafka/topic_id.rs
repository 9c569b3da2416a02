//! The ids of topics (KIP-516): librdkafka's `DescribeTopics`, for which rdkafka has no function. The
//! only module with unsafe code. It owns each C object that it makes and keeps none after the call.

#![expect(unsafe_code, reason = "rdkafka 0.39 does not wrap rd_kafka_DescribeTopics")]

use std::{
    ffi::{CStr, CString, c_int},
    ptr::{self, NonNull},
    slice,
    time::Duration,
};

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
        rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
        rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
        rd_kafka_TopicDescription_name, rd_kafka_TopicDescription_t,
        rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_least_significant_bits,
        rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t, rd_kafka_error_code,
        rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::Client,
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};

use super::context::ClientLog;

/// A C object that this process owns. Destroyed when dropped.
struct Owned<T> {
    object: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Fails if librdkafka returned no object. `destroy` must be the object's own destroy function,
    /// and nothing else may destroy the object.
    fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> KafkaResult<Self> {
        let object = NonNull::new(object).ok_or(failed(RDKafkaErrorCode::Fail))?;
        Ok(Self { object, destroy })
    }

    fn as_ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `object` is alive: only this destroys it, once. `destroy` is its own function.
        unsafe { (self.destroy)(self.object.as_ptr()) }
    }
}

/// Asks a broker for the ids of these topics; 0 of a broker without ids (before Kafka 2.8). A topic
/// that does not exist, or cannot be described now, is left out. Blocks for at most `timeout`.
pub(super) fn fetch_topic_ids(
    client: &Client<ClientLog>,
    broker_id: i32,
    topics: &[&str],
    timeout: Duration,
) -> KafkaResult<Vec<(String, u128)>> {
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let names = topics.iter().map(|topic| CString::new(*topic)).collect::<Result<Vec<_>, _>>()?;
    let mut names_c: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let rk = client.native_ptr();
    let describe_topics = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: `client` keeps `rk` alive during this function. `names_c` holds as many C strings as
    // its length says; librdkafka copies them, and `names` lives until then. All objects are dropped
    // before this function returns. An answer that comes after that is destroyed by librdkafka, which
    // counts the references to the queue.
    let event = unsafe {
        let queue = Owned::new(rd_kafka_queue_new(rk), rd_kafka_queue_destroy)?;
        let collection =
            rd_kafka_TopicCollection_of_topic_names(names_c.as_mut_ptr(), names_c.len());
        let collection = Owned::new(collection, rd_kafka_TopicCollection_destroy)?;
        let options = rd_kafka_AdminOptions_new(rk, describe_topics);
        let options = Owned::new(options, rd_kafka_AdminOptions_destroy)?;
        check(rd_kafka_AdminOptions_set_request_timeout(
            options.as_ptr(),
            timeout_ms,
            ptr::null_mut(),
            0,
        ))?;
        // Without it, librdkafka asks the controller, which may be the one broker that is down.
        check(rd_kafka_AdminOptions_set_broker(options.as_ptr(), broker_id, ptr::null_mut(), 0))?;
        rd_kafka_DescribeTopics(rk, collection.as_ptr(), options.as_ptr(), queue.as_ptr());
        let event = rd_kafka_queue_poll(queue.as_ptr(), timeout_ms);
        if event.is_null() {
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        Owned::new(event, rd_kafka_event_destroy)?
    };
    // SAFETY: `event` is alive until the end of this function, and the result, its descriptions and
    // their names live as long as the event. The array has `count` elements.
    unsafe {
        check(rd_kafka_event_error(event.as_ptr()))?;
        let result = rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return Err(failed(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let descriptions = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if descriptions.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        let descriptions = slice::from_raw_parts(descriptions, count);
        Ok(descriptions.iter().filter_map(|description| read_description(*description)).collect())
    }
}

/// The name and the id of a topic; `None` if the broker does not describe it.
///
/// # Safety
/// `description` must be null, or one of a result that is alive.
unsafe fn read_description(
    description: *const rd_kafka_TopicDescription_t,
) -> Option<(String, u128)> {
    if description.is_null() {
        return None;
    }
    // SAFETY: the description is alive, and so are its error, name and id. `rd_kafka_error_code`
    // accepts null.
    unsafe {
        check(rd_kafka_error_code(rd_kafka_TopicDescription_error(description))).ok()?;
        let (name, id) = (
            rd_kafka_TopicDescription_name(description),
            rd_kafka_TopicDescription_topic_id(description),
        );
        if name.is_null() || id.is_null() {
            return None;
        }
        let halves =
            [rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id)];
        let [high, low] = halves.map(|half| u128::from(half.cast_unsigned()));
        Some((CStr::from_ptr(name).to_str().ok()?.to_owned(), high << 64 | low))
    }
}

fn check(code: RDKafkaRespErr) -> KafkaResult<()> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(failed(code.into())),
    }
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MetadataFetch(code)
}
