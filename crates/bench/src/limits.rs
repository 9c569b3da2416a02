//! The limits: processes that do the work that cannot be avoided, and no more. Some are servers,
//! which `bench` loads as it loads the services; the others run one round of rdkafka, and print
//! their figures as JSON.

use std::{
    error::Error,
    io::{Write as _, stdout},
    path::PathBuf,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use model::{Headers, Notification, NotificationId, Partitioner, headers::to_millisecond, record};
use producer::{
    SendRequest,
    directory::{Directory, UserLookup},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{
    Problem,
    cli::settings::Secret,
    cli::shutdown,
    extract::{Body, media_type},
    ops::health::Health,
    ops::metrics::Metrics,
    server::{http, limits::HttpLimits},
};
use tokio::net::TcpListener;

use crate::{
    cpu::CpuReading,
    kafka::{BareKafka, BenchTopic, PARTITIONS},
    load::LoadProfile,
    records::Recipients,
};

/// The producer's default.
const DATABASE_CONNECTIONS: u32 = 10;
/// The producer's default.
const DIRECTORY_CACHE: u64 = 100_000;
const JSON: (axum::http::HeaderName, &str) = (CONTENT_TYPE, "application/json");

/// The limit to serve or to run. Subcommands start it.
#[derive(clap::Subcommand, Debug, Clone)]
pub(crate) enum Limit {
    /// POST /send without Kafka: everything the producer does until it would append
    Send {
        /// Address to listen on
        #[arg(long)]
        listen: String,
        /// The users' database
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database_url: Secret,
    },
    /// POST /send that parses a form or lines, and answers with constants
    Parse {
        /// Address to listen on
        #[arg(long)]
        listen: String,
    },
    /// GET /notifications/{id} from a constant
    Constant {
        /// Address to listen on
        #[arg(long)]
        listen: String,
        /// File with the body of every answer
        #[arg(long)]
        body: PathBuf,
        /// The server in front of it
        #[arg(long, value_enum)]
        server: Server,
    },
    /// Append records in a loop
    Append {
        #[command(flatten)]
        kafka: KafkaFlags,
        /// Records in flight
        #[arg(long)]
        connections: usize,
        /// Different recipients
        #[arg(long)]
        recipients: u64,
        /// Length of the round
        #[arg(long)]
        round_ms: u64,
        /// Records due a second
        #[arg(long)]
        rate: Option<u32>,
    },
    /// Read a topic
    Topic {
        #[command(flatten)]
        kafka: KafkaFlags,
        /// Records in it
        #[arg(long)]
        records: u64,
    },
}

/// Which server answers from the constant.
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub(crate) enum Server {
    /// hyper and axum, with the time-outs that any deployed server needs
    Axum,
    /// The services' server, without their layers
    Ours,
    /// The same with their layers
    Layered,
}

/// The topic, and the broker's process.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct KafkaFlags {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: u32,
    #[arg(long)]
    broker_pid: Option<u32>,
}

impl KafkaFlags {
    fn topic(&self) -> BenchTopic {
        BenchTopic { name: self.topic.clone(), partitions: self.partitions }
    }
}

impl Limit {
    /// Runs the round, or serves until SIGTERM or Ctrl-C.
    pub(crate) async fn run(self) -> Result<(), Box<dyn Error + std::marker::Send + Sync>> {
        match self {
            Self::Send { listen, database_url } => {
                let directory =
                    Directory::open_postgres(database_url.expose(), DATABASE_CONNECTIONS)?;
                let names = UserLookup::new(directory, DIRECTORY_CACHE);
                tokio::spawn(names.clone().watch_changes());
                let routes = Router::new().route("/send", post(answer_send)).with_state(names);
                // The same server and the same layers as the producer's.
                serve(&listen, routes, Server::Layered).await
            }
            Self::Parse { listen } => {
                let routes = Router::new().route("/send", post(parse_send));
                serve(&listen, routes, Server::Axum).await
            }
            Self::Constant { listen, body, server } => {
                let body = Bytes::from(std::fs::read(body)?);
                let answer = async move || ([JSON], body.clone()).into_response();
                let routes = Router::new().route("/notifications/{id}", get(answer));
                serve(&listen, routes, server).await
            }
            Self::Append { kafka, connections, recipients, round_ms, rate } => {
                let records = Recipients(recipients).encode_records()?;
                let profile =
                    LoadProfile { connections, round: Duration::from_millis(round_ms), rate };
                let (bare, topic) = (BareKafka::new(&kafka.brokers), kafka.topic());
                let sample = bare.run_append_loop(kafka.broker_pid, &topic, records, profile);
                print_json(&sample.await?)
            }
            Self::Topic { kafka, records } => {
                let (bare, topic) = (BareKafka::new(&kafka.brokers), kafka.topic());
                let reading = CpuReading::take(std::process::id())?;
                let mut curve =
                    tokio::task::spawn_blocking(move || bare.read_topic(&topic, records)).await??;
                curve.cpu_ns = reading.elapsed_ns()?;
                print_json(&curve)
            }
        }
    }
}

fn print_json(figures: &impl Serialize) -> Result<(), Box<dyn Error + std::marker::Send + Sync>> {
    Ok(stdout().write_all(&serde_json::to_vec(figures)?)?)
}

async fn serve(
    listen: &str,
    routes: Router,
    server: Server,
) -> Result<(), Box<dyn Error + std::marker::Send + Sync>> {
    let listener = TcpListener::bind(listen).await?;
    let (limits, routes) = (HttpLimits::default(), routes.merge(Health::new().routes()));
    let metrics = Metrics::new("producer", producer::metrics::describe);
    let shutdown = shutdown::cancel_on_signal();
    match server {
        Server::Axum => {
            let mut hyper = hyper::server::conn::http1::Builder::new();
            hyper.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout);
            let service = TowerToHyperService::new(routes);
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted?,
                    () = shutdown.cancelled() => return Ok(()),
                };
                stream.set_nodelay(true)?;
                let connection = hyper.serve_connection(TokioIo::new(stream), service.clone());
                tokio::spawn(connection);
            }
        }
        Server::Ours => http::serve_app(listener, routes, shutdown, limits, metrics).await,
        Server::Layered => {
            let app = http::add_layers(routes, &limits, &metrics);
            http::serve_app(listener, app, shutdown, limits, metrics).await;
        }
    }
    Ok(())
}

/// The producer's handler without the append: parses, looks up, encodes, chooses the partition, and
/// answers with the same JSON.
async fn answer_send(
    State(names): State<UserLookup>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let send = SendRequest::parse(media_type(&headers).as_deref(), &body)?;
    let people = names.look_up(std::iter::once(send.from).chain(send.to.iter().copied())).await;
    let user = |id| match people.get(id) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Problem::not_found("User not found")),
        Err(_) => Err(Problem::internal()),
    };
    let from = user(send.from)?;
    let mut sent = Vec::with_capacity(send.to.len());
    for to in &send.to {
        let notification = Notification::new(from.clone(), user(*to)?, send.message.as_str());
        let sent_at = to_millisecond(Timestamp::now());
        let headers = Headers {
            id: NotificationId::generate(),
            sent_at,
            traceparent: None,
            fingerprint: None,
        };
        let record = record::encode_notification(&notification, &headers)
            .map_err(|_| Problem::internal())?;
        let partition = Partitioner::default().partition_for(&record.key, PARTITIONS);
        sent.push(json!({ "to_id": to, "id": headers.id, "cursor": format!("{partition}-{}", record.value.len()) }));
    }
    Ok(Json(json!({ "message": "Notification sent successfully!", "sent": sent })))
}

/// As long as the producer's answer.
const ANSWER: &str = "{\"message\":\"Notification sent successfully!\",\"sent\":[{\"to_id\":1000001,\"id\":\"01a20eb0-3202-71f1-aadf-ca69605ecb9b\",\"cursor\":\"11-123456-1a2b3c4d\"}]}\n";

/// A form or lines of JSON.
#[derive(Deserialize)]
struct ParsedSend<'a> {
    from_id: i64,
    to_id: i64,
    #[serde(borrow)]
    message: std::borrow::Cow<'a, str>,
}

impl ParsedSend<'_> {
    fn is_valid(&self) -> bool {
        self.from_id > 0 && self.to_id > 0 && !self.message.is_empty()
    }
}

/// Parses a form at once, or lines as they come, and answers each with a constant.
async fn parse_send(headers: HeaderMap, body: HttpBody) -> Response {
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind != "application/x-ndjson") {
        let parsed = axum::body::to_bytes(body, 1 << 16).await.unwrap_or_default();
        let (mut ids, mut message) = (0, 0);
        for (name, value) in form_urlencoded::parse(&parsed) {
            match &*name {
                "message" => message = value.len(),
                _ => ids += value.parse::<i64>().unwrap_or(0),
            }
        }
        return ([JSON], if ids > 0 && message > 0 { ANSWER } else { "" }).into_response();
    }
    let mut rest = Vec::new();
    let answers = body.into_data_stream().map(move |part| {
        rest.extend_from_slice(&part?);
        let end = memchr::memrchr(b'\n', &rest).map_or(0, |last| last + 1);
        let lines = rest[..end].split(|byte| *byte == b'\n');
        let parsed = lines.filter_map(|line| serde_json::from_slice::<ParsedSend<'_>>(line).ok());
        let answers = ANSWER.repeat(parsed.filter(ParsedSend::is_valid).count());
        rest.drain(..end);
        Ok::<_, axum::Error>(answers)
    });
    HttpBody::from_stream(answers).into_response()
}
