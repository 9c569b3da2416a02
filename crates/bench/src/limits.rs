//! The limits that are HTTP servers: axum with almost no handler. Each runs as a process of its
//! own, as its subject does.

use std::{error::Error, path::PathBuf};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use bytes::Bytes;
use jiff::Timestamp;
use model::{Headers, Notification, NotificationId, Partitioner, headers::to_millisecond, record};
use producer::{
    SendRequest,
    directory::{Directory, UserLookup},
};
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

use crate::kafka::PARTITIONS;

/// The producer's default.
const DATABASE_CONNECTIONS: u32 = 10;
/// The producer's default.
const DIRECTORY_CACHE: u64 = 100_000;

/// The limit to serve. Subcommands start it.
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
    /// GET /notifications/{id} from a constant
    Constant {
        /// Address to listen on
        #[arg(long)]
        listen: String,
        /// File with the body of every answer
        #[arg(long)]
        body: PathBuf,
    },
}

impl Limit {
    /// Serves until SIGTERM or Ctrl-C.
    pub(crate) async fn serve(self) -> Result<(), Box<dyn Error + std::marker::Send + Sync>> {
        let ready = Router::from(Health::new().routes());
        match self {
            Self::Send { listen, database_url } => {
                let directory =
                    Directory::open_postgres(database_url.expose(), DATABASE_CONNECTIONS)?;
                let names = UserLookup::new(directory, DIRECTORY_CACHE);
                tokio::spawn(names.clone().watch_changes());
                let routes =
                    Router::new().route("/send", post(answer_send)).with_state(names).merge(ready);
                // The same server and the same layers as the producer's.
                let limits = HttpLimits::default();
                let metrics = Metrics::new("producer", producer::metrics::describe);
                let app = http::add_layers(routes, &limits, &metrics);
                let listener = TcpListener::bind(listen).await?;
                http::serve_app(listener, app, shutdown::cancel_on_signal(), limits, metrics).await;
            }
            Self::Constant { listen, body } => {
                let body = Bytes::from(std::fs::read(body)?);
                let answer = async move || {
                    ([(CONTENT_TYPE, "application/json")], body.clone()).into_response()
                };
                // Plain axum: the consumer's layers are part of the consumer's cost.
                let app = Router::new().route("/notifications/{id}", get(answer)).merge(ready);
                let listener = TcpListener::bind(listen).await?.tap_io(|stream| {
                    let _ = stream.set_nodelay(true);
                });
                let stopped = shutdown::cancel_on_signal().cancelled_owned();
                axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
            }
        }
        Ok(())
    }
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
