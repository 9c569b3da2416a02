//! What only a whole process shows: signals, and running out of file handles. Each test starts
//! this program again, with an ignored test of it as the process to look at.
#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use axum::{Router, routing::get};
use service::{
    cli::shutdown, ops::metrics::Metrics, ops::telemetry, ops::trace::TraceArgs,
    server::http::serve_app, server::limits::HttpLimits, server::listen,
};
use tokio_util::sync::CancellationToken;

/// Starts the ignored test `name` in a shell after `prepare`.
fn start(prepare: &str, name: &str) -> Child {
    let program = std::env::current_exe().expect("the path of this program");
    Command::new("sh")
        .args(["-c", &format!("{prepare} exec \"$0\" --ignored --exact --nocapture {name}")])
        .arg(program)
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell")
}

/// What follows `mark` in the first line of the process's standard error that has it.
fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, mark: &str) -> String {
    let line = lines.map(|line| line.expect("text")).find(|line| line.contains(mark));
    let line = line.unwrap_or_else(|| format!("the process ended without {mark:?}"));
    line.split_once(mark).expect(&line).1.trim().to_owned()
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status();
    assert!(done.expect("a shell").success());
}

#[test]
fn the_first_signal_cancels_the_token_and_the_second_ends_the_process_at_once() {
    for (first, second) in [("INT", "INT"), ("TERM", "INT"), ("TERM", "TERM")] {
        let mut child = start("", "process_that_waits_for_a_signal");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        wait_for(&mut lines, "waiting");
        signal(&child, first);
        wait_for(&mut lines, "cancelled");
        signal(&child, second);
        wait_for(&mut lines, &format!("SIG{second} again"));
        assert_eq!(child.wait().expect("an exit").code(), Some(130), "{first} {second}");
    }
}

#[tokio::test]
#[ignore = "a process for another test"]
async fn process_that_waits_for_a_signal() {
    let token = shutdown::cancel_on_signal();
    eprintln!("waiting");
    token.cancelled().await;
    eprintln!("cancelled");
    std::future::pending::<()>().await;
}

#[test]
fn a_server_that_ran_out_of_file_handles_serves_again_when_it_has_some() {
    let mut child = start("ulimit -n 32;", "process_that_serves");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let address = wait_for(&mut lines, "listening on ");
    let connect = || TcpStream::connect(&address).expect("a place in the backlog");
    let crowd: Vec<_> = (0..40).map(|_| connect()).collect();
    wait_for(&mut lines, "cannot accept connections");
    drop(crowd);
    let mut connection = connect();
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("the server reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    child.kill().expect("a running process");
    child.wait().expect("an exit");
}

#[tokio::test]
#[ignore = "a process for another test"]
async fn process_that_serves() {
    let logs = telemetry::TelemetryArgs {
        log_format: telemetry::LogFormat::Json,
        log: "info".into(),
        trace: TraceArgs { otlp_endpoint: None, trace_ratio: 0.0 },
    };
    telemetry::init_logging(&logs).expect("logs");
    let listener =
        listen::bind_listener("test", "127.0.0.1:0", "--listen", "LISTEN").await.expect("a port");
    eprintln!("listening on {}", listener.local_addr().expect("an address"));
    let app = Router::new().route("/", get(async || "hello"));
    serve_app(
        listener,
        app,
        CancellationToken::new(),
        HttpLimits::default(),
        Metrics::new("test", service::ops::metrics::describe_service),
    )
    .await;
}
