//! The limits of connections and requests, as flags and environment variables.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::cli::settings::{parse_duration, parse_positive_duration};

/// hyper's minimum.
pub(super) const MIN_HEADER_BYTES: usize = 8192;

/// Limits of connections and requests.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "HTTP limits")]
pub struct HttpLimits {
    /// Maximum bytes of a request body; more is answered with 413
    #[arg(long, env = "HTTP_MAX_BODY_BYTES", default_value = "1048576", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 30))]
    pub max_body_bytes: usize,
    /// Maximum bytes of all request bodies in memory; more is answered with 503. One caller may have
    /// a quarter of it
    #[arg(long, env = "HTTP_MAX_BODIES_BYTES", default_value = "67108864", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 40))]
    pub max_bodies_bytes: usize,
    /// Maximum bytes of all responses that clients have not read yet; a further read is answered with
    /// 503. One caller may have a quarter of it, and is then answered with 429
    #[arg(long, env = "HTTP_MAX_REPLIES_BYTES", default_value = "67108864", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 40))]
    pub max_replies_bytes: usize,
    /// Maximum concurrent requests; more are answered with 503. One caller may have a quarter of them,
    /// and is then answered with 429. Live streams and long polls have limits of their own
    #[arg(long, env = "HTTP_MAX_REQUESTS", default_value = "2048", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_requests: usize,
    /// Maximum open connections, live streams included. For a further one, those are closed that have
    /// had no request for the longest time; if none is idle, it waits. Must exceed the live streams
    /// and requests that are allowed, or these can keep health checks out
    #[arg(long, env = "HTTP_MAX_CONNECTIONS", default_value = "30000", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,
    /// Maximum open connections that have no request under way, each of which may take 40 KiB. For a
    /// further one, those are closed that have had none for the longest time
    #[arg(long, env = "HTTP_MAX_IDLE_CONNECTIONS", default_value = "2048", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_idle_connections: usize,
    /// Maximum bytes of the request line and headers; more is answered with 431
    #[arg(long, env = "HTTP_MAX_HEADER_BYTES", default_value = "32768", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(MIN_HEADER_BYTES as u64..=1 << 20))]
    pub max_header_bytes: usize,
    /// Time for a new connection to send the headers of its first request
    #[arg(long, env = "HTTP_HEADER_TIMEOUT", default_value = "10s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub header_timeout: Duration,
    /// Time from a response to the next request on the connection. Must exceed the load balancer's
    /// idle time-out
    #[arg(long, env = "HTTP_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub idle_timeout: Duration,
    /// Time for a request body to arrive; a later one is answered with 408
    #[arg(long, env = "HTTP_BODY_TIMEOUT", default_value = "30s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub body_timeout: Duration,
    /// Time until a response begins; a later one is answered with 504. Must exceed the longest long
    /// poll, 60 s
    #[arg(long, env = "HTTP_REQUEST_TIMEOUT", default_value = "90s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub request_timeout: Duration,
    /// Time in which a client must read something of a response; then its connection is closed
    #[arg(long, env = "HTTP_WRITE_TIMEOUT", default_value = "30s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub write_timeout: Duration,
    /// Time for requests under way after a shutdown signal; then they are cut off
    #[arg(long, env = "HTTP_DRAIN_TIMEOUT", default_value = "10s", value_name = "TIME",
        value_parser = parse_duration)]
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    /// The flags' defaults.
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_bodies_bytes: 64 << 20,
            max_replies_bytes: 64 << 20,
            max_requests: 2048,
            max_connections: 30_000,
            max_idle_connections: 2048,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        limits: HttpLimits,
        /// Not a limit.
        #[arg(long)]
        other: bool,
    }

    #[test]
    fn the_default_limits_are_those_of_the_flags() {
        let flags = Flags::parse_from(["service"]);
        assert_eq!(flags.limits, HttpLimits::default());
        assert!(!flags.other);
    }

    #[test]
    fn limits_that_would_let_nothing_through_are_refused() {
        for arguments in [
            ["--max-body-bytes", "0"],
            ["--max-header-bytes", "100"],
            ["--max-requests", "0"],
            ["--max-connections", "0"],
            ["--max-idle-connections", "0"],
            ["--request-timeout", "0"],
            ["--header-timeout", "0"],
            ["--idle-timeout", "0s"],
            ["--write-timeout", "0s"],
            ["--max-replies-bytes", "0"],
            ["--body-timeout", "soon"],
        ] {
            assert!(
                Flags::try_parse_from(["service"].into_iter().chain(arguments)).is_err(),
                "{arguments:?}"
            );
        }
        assert!(Flags::try_parse_from(["service", "--drain-timeout", "0"]).is_ok());
    }
}
