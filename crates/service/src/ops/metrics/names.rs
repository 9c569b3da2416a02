//! The metrics that this crate counts: name, meaning and labels.
//!
//! Durations are in seconds, sizes in bytes. Labels are few and bounded: never a user, never a path
//! as it was sent. A metric of a process that runs several services has the label `service`.
#![allow(missing_docs)] // The descriptions say what each constant is.

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub const BUILD_INFO: &str = "notifications_build_info";
pub const HTTP_REQUESTS: &str = "notifications_http_requests_total";
pub const HTTP_SECONDS: &str = "notifications_http_request_duration_seconds";
pub const HTTP_IN_FLIGHT: &str = "notifications_http_requests_in_flight";
pub const HTTP_CONNECTIONS: &str = "notifications_http_connections";
pub const HTTP_SHED: &str = "notifications_http_shed_total";
pub const AUTH_REFUSED: &str = "notifications_auth_refused_total";
pub const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
pub const OPEN_FDS: &str = "process_open_fds";
pub const MAX_FDS: &str = "process_max_fds";
pub const CPU_SECONDS: &str = "process_cpu_seconds_total";
pub const START_TIME: &str = "process_start_time_seconds";
pub const CANARY_SECONDS: &str = "notifications_canary_seconds";
pub const CANARY_LAST_SUCCESS: &str = "notifications_canary_last_success_timestamp_seconds";
pub const CANARY_FAILURES: &str = "notifications_canary_failures_total";

/// Describes all of them.
pub fn describe_service() {
    describe_gauge!(
        BUILD_INFO,
        "Always 1; the labels say which version runs; labels: service, version"
    );
    describe_counter!(
        HTTP_REQUESTS,
        "Requests answered; `route` is the pattern, such as `/notifications/{id}`, or `-`; labels: service, method, route, status"
    );
    describe_histogram!(
        HTTP_SECONDS,
        "From a request to the head of its response; long polls included; labels: service, route"
    );
    describe_gauge!(HTTP_IN_FLIGHT, "Requests whose response has not begun yet; labels: service");
    describe_gauge!(
        HTTP_CONNECTIONS,
        "Open connections; event streams included, WebSockets not; labels: service"
    );
    describe_counter!(
        HTTP_SHED,
        "Requests and connections turned away under load, by reason: `requests`, `connections`, `deadline`, `bulks`, `bodies`, `replies` (not read by their clients); labels: service, reason"
    );
    describe_counter!(
        AUTH_REFUSED,
        "Requests refused for their token, by reason: `missing`, `invalid`, `expired`, `forbidden`; labels: service, reason"
    );
    describe_gauge!(RESIDENT_MEMORY, "Resident memory of this process");
    describe_gauge!(OPEN_FDS, "Open file descriptors of this process");
    describe_gauge!(MAX_FDS, "File descriptors that this process may have open");
    describe_counter!(CPU_SECONDS, "Processor time of this process, user and system");
    describe_gauge!(START_TIME, "Time at which this process started, in seconds since 1970");
    describe_histogram!(
        CANARY_SECONDS,
        "Time that a canary probe took to its inbox; labels: service"
    );
    describe_gauge!(
        CANARY_LAST_SUCCESS,
        "Time at which a canary probe last arrived, in seconds since 1970; labels: service"
    );
    describe_counter!(
        CANARY_FAILURES,
        "Canary probes that did not arrive in time; labels: service"
    );
}
