//! A media type that is read is one, in lower case.

use axum::http::HeaderValue;
use inputs::{bytes, mutated};
use proptest::{collection::vec, prelude::*};

use super::*;

proptest! {
    #[test]
    fn a_media_type_that_is_taken_is_one_in_lower_case(
        values in vec(
            prop_oneof![
                bytes(),
                mutated("[a-zA-Z]{1,9}/[a-zA-Z+-]{1,9} ?(; ?charset=[a-z]{1,4})?".prop_map(String::into_bytes)),
            ],
            0..3,
        ),
    ) {
        let mut headers = HeaderMap::new();
        for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
            headers.append(header::CONTENT_TYPE, value);
        }
        if let Some(essence) = media_type(&headers) {
            prop_assert_eq!(headers.len(), 1);
            prop_assert_eq!(essence.trim().to_ascii_lowercase(), essence.as_str());
            prop_assert!(essence.contains('/') && !essence.contains(';'));
        }
    }
}
