//! The I-JSON check (RFC 7493) of a notification's data. An inbox's page embeds the data: a client
//! whose parser rejects it could not read the whole page.

use std::fmt;

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Why JSON is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotIJson {
    /// It nests deeper than allowed.
    TooDeep,
    /// It holds a lone surrogate or a number outside the range of f64.
    NotPortable,
}

/// Fails if the JSON nests deeper than `levels`, or holds a lone surrogate or a number outside the
/// range of f64 (RFC 7493).
pub(crate) fn check_ijson(data: &RawValue, levels: usize) -> Result<(), NotIJson> {
    let mut json = serde_json::Deserializer::from_str(data.get());
    IJsonChecker { levels }.deserialize(&mut json).map_err(|error| {
        // Only `enter_level` fails with a data error; every other error is the parser's.
        if error.is_data() { NotIJson::TooDeep } else { NotIJson::NotPortable }
    })
}

/// Visits every value and discards it.
#[derive(Clone, Copy)]
struct IJsonChecker {
    /// How many more levels of arrays and objects may be entered.
    levels: usize,
}

impl IJsonChecker {
    fn enter_level<E: de::Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { levels })
    }
}

impl<'de> DeserializeSeed<'de> for IJsonChecker {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IJsonChecker {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inner = self.enter_level()?;
        while list.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inner = self.enter_level()?;
        while object.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}
