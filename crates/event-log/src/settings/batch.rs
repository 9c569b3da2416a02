//! Flags of batching and compression, and their bounds.

use std::{fmt, time::Duration};

use clap::{Args, ValueEnum};
use service::cli::settings::parse_precise_duration;

/// A sender waits as long as its record.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// Batching of appended records.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Kafka")]
pub struct BatchArgs {
    /// How long an appended record waits for its batch to fill, such as 1ms or 500us; at most 1s.
    /// More gives larger batches under load; every send waits this long
    #[arg(long, env = "KAFKA_LINGER", default_value = "1ms", value_name = "DURATION", value_parser = parse_linger)]
    pub linger: Duration,

    /// Compression of batches
    #[arg(long, env = "KAFKA_COMPRESSION", value_enum, default_value_t = Compression::Lz4)]
    pub compression: Compression,
}

/// The codecs of every build; zstd needs a library that they do not have.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// Fast, and effective on similar records.
    Lz4,
    /// Similar to lz4, for brokers and readers that prefer it.
    Snappy,
    /// The smallest and the slowest.
    Gzip,
}

impl Default for BatchArgs {
    fn default() -> Self {
        Self { linger: Duration::from_millis(1), compression: Compression::Lz4 }
    }
}

impl BatchArgs {
    /// In milliseconds, the unit of librdkafka.
    pub(crate) fn linger_ms(&self) -> String {
        (self.linger.as_secs_f64() * 1000.0).to_string()
    }
}

/// librdkafka's name of the codec.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
        })
    }
}

fn parse_linger(text: &str) -> Result<Duration, String> {
    let span = parse_precise_duration(text).ok().filter(|span| *span <= MAX_LINGER);
    // Seconds would be a surprising default unit here.
    span.filter(|span| span.is_zero() || !text.trim_end().ends_with(|c: char| c.is_ascii_digit()))
        .ok_or_else(|| "must be a whole number and a unit, such as 1ms or 500us, up to 1s".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        batch: BatchArgs,
    }

    fn parse(flags: &[&str]) -> Result<BatchArgs, clap::Error> {
        Cli::try_parse_from(["test"].iter().chain(flags)).map(|cli| cli.batch)
    }

    #[test]
    fn what_is_not_given_is_what_a_program_without_flags_has() {
        assert_eq!(parse(&[]).expect("flags"), BatchArgs::default());
    }

    #[test]
    fn librdkafka_is_told_in_its_own_words() {
        let told = |linger, compression| {
            let batch = parse(&["--linger", linger, "--compression", compression]).expect("flags");
            (batch.linger_ms(), batch.compression.to_string())
        };
        assert_eq!(told("500us", "none"), ("0.5".into(), "none".into()));
        assert_eq!(told("0", "lz4"), ("0".into(), "lz4".into()));
        assert_eq!(told("5ms", "snappy"), ("5".into(), "snappy".into()));
        assert_eq!(told("1s", "gzip"), ("1000".into(), "gzip".into()));
    }

    #[test]
    fn a_wait_is_bounded_and_has_a_unit() {
        for wrong in
            ["", "5", "ms", "-1ms", "1.5ms", "1001ms", "2s", "1h", "99999999999999999999us"]
        {
            assert!(parse(&["--linger", wrong]).is_err(), "{wrong}");
        }
        assert!(parse(&["--compression", "zstd"]).is_err());
    }
}
