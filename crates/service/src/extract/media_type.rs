//! The media type of a request.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

/// The media type of `Content-Type`, in lower case and without parameters: `application/json` of
/// `Application/JSON; charset=utf-8`. `None` if the header is missing, repeated or invalid (RFC
/// 9110, section 8.3).
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let essence = value.to_str().ok()?.split(';').next()?.trim();
    let (main, sub) = essence.split_once('/')?;
    if main.is_empty() || sub.is_empty() {
        return None;
    }
    let upper = essence.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if upper { essence.to_ascii_lowercase().into() } else { essence.into() })
}

#[cfg(test)]
mod fuzz {
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
                prop_assert_eq!(essence.trim().to_ascii_lowercase(), essence.as_ref());
                prop_assert!(essence.contains('/') && !essence.contains(';'));
            }
        }
    }
}
