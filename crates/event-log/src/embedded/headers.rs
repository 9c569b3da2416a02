//! The encoding of a record's headers in one column: for each header, the length of its name, the
//! name, the length of its value, the value. A length is a LEB128 variable-length integer.

use smallvec::SmallVec;

/// Borrowed from the row; see [`Record::headers`](crate::Record::headers).
pub(super) type Headers<'a> = SmallVec<[(&'a str, &'a [u8]); 8]>;

pub(super) fn encode_headers<N: AsRef<str>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> Vec<u8> {
    let size =
        headers.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len() + 4).sum();
    let mut bytes = Vec::with_capacity(size);
    for (name, value) in headers {
        push_field(&mut bytes, name.as_ref().as_bytes());
        push_field(&mut bytes, value.as_ref());
    }
    bytes
}

/// `None` if the column holds no headers: the file is damaged.
pub(super) fn decode_headers(mut bytes: &[u8]) -> Option<Headers<'_>> {
    let mut headers = Headers::new();
    while !bytes.is_empty() {
        let name = std::str::from_utf8(take_field(&mut bytes)?).ok()?;
        headers.push((name, take_field(&mut bytes)?));
    }
    Some(headers)
}

fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    let mut length = field.len();
    while length >= 0x80 {
        // Seven bits, and a bit that says that more follow.
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(field);
}

fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_usize;
    // Four groups of seven bits are 256 MiB; a record has at most 1 MiB.
    for group in 0..4 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            let (field, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            return Some(field);
        }
    }
    None
}

#[cfg(test)]
mod fuzz {
    use inputs::{bytes, mutated, text};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_damaged_column_is_malformed_or_is_read_again_as_it_was_written(
            column in prop_oneof![
                bytes(),
                mutated(vec((text(), bytes()), 0..6).prop_map(|headers| encode_headers(&headers))),
            ],
        ) {
            let Some(read) = decode_headers(&column) else { return Ok(()) };
            // The headers borrow from the column, so they cannot be longer.
            let held: usize = read.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            prop_assert!(held <= column.len());
            let read: Vec<_> = read.iter().map(|(name, value)| (*name, value.to_vec())).collect();
            let written = encode_headers(&read);
            let again = decode_headers(&written).ok_or_else(|| TestCaseError::fail("malformed"))?;
            let again: Vec<_> =
                again.iter().map(|(name, value)| (*name, value.to_vec())).collect();
            prop_assert_eq!(again, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const NAMES: [&str; 5] = ["", "ce_id", "content-type", "größe", "traceparent"];

    fn any_headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
        vec((prop::sample::select(&NAMES[..]), vec(any::<u8>(), 0..300)), 0..12)
    }

    proptest! {
        #[test]
        fn headers_are_read_back_as_they_were_written(headers in any_headers()) {
            let bytes = encode_headers(&headers);
            let read = decode_headers(&bytes).ok_or_else(|| TestCaseError::fail("malformed"))?;
            let read: Vec<_> = read.iter().map(|(name, value)| (*name, value.to_vec())).collect();
            prop_assert_eq!(read, headers);
        }

        #[test]
        fn a_cut_off_column_is_malformed_or_a_shorter_list(headers in any_headers(), cut in 1_usize..100) {
            let bytes = encode_headers(&headers);
            let cut = &bytes[..bytes.len().saturating_sub(cut)];
            if let Some(read) = decode_headers(cut) {
                prop_assert!(read.len() < headers.len() || headers.is_empty());
            }
        }
    }

    #[test]
    fn a_value_of_a_mebibyte_is_read_back() {
        let headers = [("big", vec![7; 1 << 20])];
        let bytes = encode_headers(&headers);
        assert_eq!(decode_headers(&bytes).map(|read| read[0].1.len()), Some(1 << 20));
    }

    #[test]
    fn a_length_without_end_is_malformed() {
        assert_eq!(decode_headers(&[0xff; 64]), None);
    }
}
