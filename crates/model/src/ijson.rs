//! The I-JSON check (RFC 7493) of a notification's data. An inbox's page embeds the data: a client
//! whose parser rejects it could not read the whole page.

use std::fmt;

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Fails with a data error if the JSON nests deeper than `levels`, and with another error if it holds
/// a lone surrogate or a number outside the range of f64.
pub(crate) fn check_ijson(data: &RawValue, levels: usize) -> serde_json::Result<()> {
    IJsonChecker { levels }.deserialize(&mut serde_json::Deserializer::from_str(data.get()))
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
