//! Whether JSON is such that every program can read it (RFC 7493, I-JSON). Data stands within its
//! recipient's inbox: what some parsers refuse would take the whole inbox from those who use them.

use std::fmt;

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Why some program could not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotIJson {
    /// It nests deeper than is allowed.
    TooDeep,
    /// A text or a number of it is none.
    NotPortable,
}

/// Lets through what nests at most so many levels deep, and whose texts and numbers are some.
pub(crate) fn check_ijson(data: &RawValue, levels: usize) -> Result<(), NotIJson> {
    let mut json = serde_json::Deserializer::from_str(data.get());
    IJsonChecker { levels }.deserialize(&mut json).map_err(|error| {
        // Of the two reasons only the depth is ours to tell, and not the parser's.
        if error.is_data() { NotIJson::TooDeep } else { NotIJson::NotPortable }
    })
}

/// Reads every value and keeps none.
#[derive(Clone, Copy)]
struct IJsonChecker {
    /// How many arrays and objects may still begin within each other.
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
