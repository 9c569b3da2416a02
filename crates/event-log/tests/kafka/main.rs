//! The Kafka driver, from the outside: against librdkafka's in-memory broker, and (ignored unless
//! asked for) against a real one: `scripts/real run -- cargo test -p event-log --test kafka
//! -- --ignored`.

mod harness;
mod following;
mod behind;
mod behind_real;
mod dlq;
mod lease;
mod real;
