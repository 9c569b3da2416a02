//! Shutdown signals: the first SIGINT or SIGTERM cancels a token. Its holders decide how to drain.

use std::{io, io::Write as _};

use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT (Ctrl-C) or SIGTERM cancels. The second signal ends the process at
/// once with status 130.
///
/// Call it once, on a tokio runtime. If the handlers cannot be registered (logged), signals keep
/// their default and end the process.
#[must_use]
pub fn cancel_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let mut signals = match Signals::register_handlers() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot handle signals; a signal will end the process at once");
            return token;
        }
    };
    let cancel = token.clone();
    tokio::spawn(async move {
        let signal = signals.next_signal().await;
        tracing::info!(signal, "shutting down; a second signal ends the process at once");
        cancel.cancel();
        let signal = signals.next_signal().await;
        let _ = writeln!(
            io::stderr(),
            "{signal} again: exiting at once; requests under way are cut off"
        );
        std::process::exit(130); // 128 + SIGINT, as shells report it.
    });
    token
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn register_handlers() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next_signal(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn register_handlers() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next_signal(&mut self) -> &'static str {
        self.0.recv().await;
        "Ctrl-C"
    }
}
