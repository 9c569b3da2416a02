//! The command line of the program `producer`: its flags and commands.

use std::{fs, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use event_log::settings::KafkaArgs;
use service::cli::{
    program::{ServiceArgs, ServiceCommand},
    settings::Secret,
};

use crate::settings::Settings;

/// Publishes notifications.
///
/// POST /send looks both users up in PostgreSQL, appends a record for each recipient to Kafka, and
/// answers once Kafka has acknowledged. It takes a form, JSON, or NDJSON with a line for each send.
/// /users lists, creates, renames and deletes users.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "producer",
    version,
    mut_arg("insecure", |arg| arg.env("PRODUCER_INSECURE")),
    after_help = "Try it:\n  producer migrate\n  producer\n  curl -X POST http://localhost:8080/send -d \"from_id=2&to_id=1&message=Bruno started following you.\""
)]
pub struct ProducerCli {
    /// The command; without one, the producer serves
    #[command(subcommand)]
    pub command: Option<ProducerCommand>,

    /// Address to listen on; port 0: any free port
    #[arg(
        long,
        env = "PRODUCER_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT",
        global = true
    )]
    pub listen: String,

    /// The connection to PostgreSQL
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The connection to Kafka
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// The service
    #[command(flatten)]
    pub settings: Settings,

    /// The flags of every program
    #[command(flatten)]
    pub shared: ServiceArgs,
}

/// The commands besides serving.
#[derive(Subcommand, Clone, Debug)]
pub enum ProducerCommand {
    /// Create the users table with the first four users, or update it
    Migrate,
    /// The subcommands of every program
    #[command(flatten)]
    Service(ServiceCommand),
}

/// The connection to PostgreSQL.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "PostgreSQL")]
pub struct DatabaseArgs {
    /// URL of the database with the users table. `?sslmode=verify-full` encrypts the connection and
    /// verifies the server's certificate, against `&sslrootcert=FILE` if given, otherwise the system's
    /// authorities. `&sslcert=FILE&sslkey=FILE` are the client's certificate and key. TLS needs a build
    /// with --features tls. The database of docker-compose.yml is
    /// `postgres://notifications:notifications@localhost:5432/notifications`
    /// [default: that of docker-compose.yml]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", global = true)]
    pub database_url: Option<Secret>,

    /// File with that URL. Other users of this machine can read flags, but not the file
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", global = true)]
    pub database_url_file: Option<PathBuf>,

    /// Maximum number of connections to the database
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_name = "COUNT", global = true,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
}

impl DatabaseArgs {
    /// Returns the URL, from the flag or the file.
    pub fn read_url(&self) -> Result<Secret, String> {
        const DEFAULT: &str = "postgres://notifications:notifications@localhost:5432/notifications";
        // Docker Compose passes an unset variable as an empty one.
        let given = self.database_url.as_ref().is_some_and(|url| !url.expose().is_empty());
        match &self.database_url_file {
            Some(_) if given => Err("--database-url (DATABASE_URL) and --database-url-file (DATABASE_URL_FILE) are both given: leave one out".into()),
            Some(path) => match fs::read_to_string(path) {
                Ok(url) => Ok(url.trim().to_owned().into()),
                Err(error) => Err(format!(
                    "--database-url-file (DATABASE_URL_FILE): cannot read {}: {error}",
                    path.display()
                )),
            },
            None => Ok(self.database_url.clone().unwrap_or_else(|| DEFAULT.to_owned().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(flags: &[&str]) -> Result<Secret, String> {
        ProducerCli::parse_from(["producer"].iter().chain(flags)).database.read_url()
    }

    #[test]
    fn the_database_is_the_flag_s_or_the_file_s_but_not_both() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), "postgres://u:hunter2@file/d\n").expect("a writable file");
        let path = file.path().to_str().expect("a readable path");
        let flag = ["--database-url", "postgres://u:hunter2@flag/d"];
        let of_file = ["--database-url-file", path];

        assert!(url(&[]).expect("the default").expose().contains("@localhost:5432/"));
        assert_eq!(url(&flag).expect("the flag's").expose(), "postgres://u:hunter2@flag/d");
        assert_eq!(url(&of_file).expect("the file's").expose(), "postgres://u:hunter2@file/d");
        let empty = [&of_file[..], &["--database-url", ""]].concat();
        assert_eq!(url(&empty).expect("the file's").expose(), "postgres://u:hunter2@file/d");

        let both = url(&[&flag[..], &of_file].concat()).expect_err("too many");
        assert!(both.contains("DATABASE_URL_FILE") && !both.contains("hunter2"), "{both}");
        let missing = url(&["--database-url-file", "/no/such/file"]).expect_err("no file");
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
