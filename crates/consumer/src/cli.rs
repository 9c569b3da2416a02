//! The command line of the program `consumer`: its flags and commands.

use clap::{Arg, Parser, Subcommand};
use event_log::settings::KafkaArgs;
use model::Cursor;
use service::cli::program::{ServiceArgs, ServiceCommand};

use crate::settings::ConsumerSettings;

/// Serves each user's notifications from memory.
///
/// Joins the consumer group, reads its assigned partitions from their beginning, and answers GET
/// /notifications/{id}. A restart loses no notification.
#[derive(Parser, Clone, Debug)]
#[command(version, mut_arg("insecure", |arg| arg.env("CONSUMER_INSECURE")), mut_args(make_global))]
#[command(after_help = "Try it:\n  curl http://localhost:8081/notifications/1")]
pub struct ConsumerCli {
    /// The command; without one, the consumer serves
    #[command(subcommand)]
    pub command: Option<ConsumerCommand>,

    /// Address to listen on; port 0: any free port
    #[arg(
        long,
        env = "CONSUMER_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub listen: String,

    /// The connection to Kafka
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// The service
    #[command(flatten)]
    pub settings: ConsumerSettings,

    /// The flags of every program
    #[command(flatten)]
    pub shared: ServiceArgs,
}

/// Lets the flags of Kafka and of the topics also stand after a command, as in
/// `consumer dlq list --kafka-brokers …`.
fn make_global(arg: Arg) -> Arg {
    match arg.get_help_heading() {
        Some("Kafka" | "Topics") => arg.global(true),
        _ => arg,
    }
}

/// The commands besides serving.
#[derive(Subcommand, Clone, Debug)]
pub enum ConsumerCommand {
    /// The subcommands of every program
    #[command(flatten)]
    Service(ServiceCommand),
    /// List or replay the poison records in the dead-letter queue
    #[command(subcommand)]
    Dlq(Dlq),
}

/// The commands for the dead-letter queue.
#[derive(Subcommand, Clone, Debug)]
pub enum Dlq {
    /// Show each record's position, origin, error and the beginning of its value
    List,
    /// Write records back to the notifications' topic, so that they are read again
    Replay {
        /// Positions, as `list` shows them
        #[arg(required_unless_present = "all", value_name = "PARTITION-OFFSET")]
        places: Vec<Cursor>,
        /// Replay all records
        #[arg(long, conflicts_with = "places")]
        all: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(url: &str) -> String {
        let cli = ConsumerCli::try_parse_from(["consumer", "--advertise", url]).expect("settings");
        cli.settings.advertised_url("127.0.0.1:8081".parse().expect("an address"))
    }

    #[test]
    fn flags_of_kafka_may_stand_after_a_command() {
        for arguments in [
            ["consumer", "--kafka-brokers", "a:1", "--topic", "t", "dlq", "list"],
            ["consumer", "dlq", "list", "--kafka-brokers", "a:1", "--topic", "t"],
            ["consumer", "dlq", "--kafka-brokers", "a:1", "list", "--topic", "t"],
        ] {
            let cli = ConsumerCli::try_parse_from(arguments).expect("settings");
            assert!(matches!(cli.command, Some(ConsumerCommand::Dlq(Dlq::List))));
            assert_eq!(cli.settings.topics.topic, "t", "{arguments:?}");
            assert_eq!(cli.kafka.kafka_brokers, "a:1", "{arguments:?}");
        }
    }

    #[test]
    fn the_advertised_url_takes_the_host_name() {
        let output = std::process::Command::new("uname").arg("-n").output().expect("uname");
        let name = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(advertised("http://{hostname}:8081"), format!("http://{}:8081", name.trim()));
        assert_eq!(advertised("http://10.0.0.7:8081"), "http://10.0.0.7:8081");
    }
}
