//! The hash from a record's key to its partition, exactly as Kafka clients in other languages compute it.
//!
//! A recipient's partition depends on their id, the partition count and the partitioner. Producer and
//! consumer must use the same partitioner, and it must never change for a topic.

use std::{fmt, str::FromStr};

/// A hash function for keys. Each maps a key to the same partition as the client that it is named
/// for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partitioner {
    /// The Java client's default, librdkafka's `murmur2`.
    #[default]
    Murmur2,
    /// Sarama's (Go) default, librdkafka's `fnv1a`.
    Fnv1a,
    /// librdkafka's own default, `consistent`.
    Crc32,
}

impl Partitioner {
    /// In the order of the variants.
    const NAMES: [&'static str; 3] = ["murmur2", "fnv1a", "crc32"];

    /// The partition of this key among `partitions` ≥ 1 partitions.
    #[must_use]
    pub fn partition_for(self, key: &[u8], partitions: u32) -> i32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Fnv1a => fnv1a(key),
            Self::Crc32 => crc32fast::hash(key),
        };
        // Kafka's partition count is an i32, so the remainder fits.
        i32::try_from(hash % partitions.max(1)).unwrap_or(0)
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`: 32-bit `MurmurHash2` with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // A length beyond 32 bits wraps, as Java's `int` does.
    #[allow(clippy::cast_possible_truncation)]
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, &b| k << 8 | u32::from(b));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0, |k, &b| k << 8 | u32::from(b));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ h >> 15
}

/// 32-bit FNV-1a as the absolute value of a signed number, as Sarama computes it.
fn fnv1a(data: &[u8]) -> u32 {
    data.iter()
        .fold(0x811c_9dc5_u32, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
        .cast_signed()
        .unsigned_abs()
}

impl fmt::Display for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// The text is not the name of a [`Partitioner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be murmur2 (Java clients), fnv1a (Sarama) or crc32 (librdkafka)")]
pub struct UnknownPartitioner;

impl FromStr for Partitioner {
    type Err = UnknownPartitioner;

    fn from_str(s: &str) -> Result<Self, UnknownPartitioner> {
        [Self::Murmur2, Self::Fnv1a, Self::Crc32]
            .into_iter()
            .find(|p| Self::NAMES[*p as usize] == s)
            .ok_or(UnknownPartitioner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_test_vectors_of_the_java_client() {
        // From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn every_partitioner_is_known_by_its_name() {
        for name in Partitioner::NAMES {
            assert_eq!(name.parse::<Partitioner>().map(|p| p.to_string()), Ok(name.to_owned()));
        }
        assert!("sha1".parse::<Partitioner>().is_err());
    }
}
