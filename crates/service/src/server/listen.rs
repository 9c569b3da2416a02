//! Binds listeners, with errors that say how to choose another address, and refuses addresses that
//! other machines can reach.

use std::{
    fmt::Display,
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Length of the accept queue: the default of `net.core.somaxconn` on Linux. Thousands of
/// subscribers reconnect at once when an instance stops.
const BACKLOG: u32 = 4096;

/// Bytes of responses that the kernel keeps for a client, of which Linux doubles the number. By itself
/// it keeps up to 4 MiB of a connection that is not read, which counts as memory of the container.
const SEND_BUFFER_BYTES: u32 = 128 << 10;

/// Why a service cannot listen, and how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BindError(String);

impl BindError {
    fn new(address: &str, name: &str, error: &io::Error, flag: &str, env: &str) -> Self {
        let why = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("the address is already in use, perhaps by another {name}")
            }
            ErrorKind::PermissionDenied => {
                "permission denied; a port below 1024 needs a privileged process".to_owned()
            }
            _ => error.to_string(),
        };
        Self(format!(
            "cannot listen on {address} for the {name}: {why}. Choose another with {flag} HOST:PORT, \
             or {env} in the environment (port 0: any free one)"
        ))
    }
}

/// Fails if `address` is not loopback and not `guarded`.
fn check_exposure(
    address: SocketAddr,
    guarded: bool,
    flag: &str,
    env: &str,
) -> Result<(), BindError> {
    // `::ffff:127.0.0.1` is loopback too. An unspecified address means every interface.
    if guarded || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let port = address.port();
    Err(BindError(format!(
        "refusing to listen on {address}: other machines can reach it, and authentication is off, so anyone there could \
         act as any user. Turn it on (--auth-secret-file or --auth-jwks-file), choose a loopback address ({flag} \
         127.0.0.1:{port}, or {env} in the environment), or add --insecure where the network itself keeps \
         strangers out"
    )))
}

/// Binds `address`, a socket address or `host:port` (port 0: any free port). `name` is the service
/// in error messages, such as `producer`; `flag` and `env` are the settings of the address, such as
/// `--listen` and `PRODUCER_LISTEN`.
pub async fn bind_listener(
    name: &str,
    address: impl Display,
    flag: &str,
    env: &str,
) -> Result<TcpListener, BindError> {
    let address = address.to_string();
    let bound = listen_on_first(&address).await;
    bound.map_err(|error| BindError::new(&address, name, &error, flag, env))
}

/// Binds `address` as [`bind_listener`] does. Refuses one that strangers can reach, unless it is
/// `guarded` by authentication or `--insecure`.
pub async fn open_listener(
    name: &str,
    address: &str,
    guarded: bool,
    flag: &str,
    env: &str,
) -> Result<TcpListener, BindError> {
    let listener = bind_listener(name, address, flag, env).await?;
    let bound = listener.local_addr();
    let bound = bound.map_err(|error| BindError::new(address, name, &error, flag, env))?;
    check_exposure(bound, guarded, flag, env)?;
    Ok(listener)
}

/// Listens on the first of the host's addresses that can be listened on.
async fn listen_on_first(address: &str) -> io::Result<TcpListener> {
    let mut last = None;
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Lets a restarted service bind while old connections are in TIME_WAIT. On Windows the same
        // option would let two services share the port.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(ErrorKind::NotFound, "no such host")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(address: impl Display) -> String {
        let listener = bind_listener("producer", address, "--listen", "PRODUCER_LISTEN").await;
        listener.expect_err("an address that cannot be had").to_string()
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_who_wanted_it_and_how_to_choose_another() {
        let first = bind_listener("consumer", "127.0.0.1:0", "--listen", "CONSUMER_LISTEN")
            .await
            .expect("a free port");
        let taken = first.local_addr().expect("a bound address");
        let text = failure(taken).await;
        for part in [&*taken.to_string(), "producer", "in use", "--listen", "PRODUCER_LISTEN"] {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
    }

    #[tokio::test]
    async fn an_address_of_another_machine_or_no_host_is_an_error_with_the_same_advice() {
        // TEST-NET-1 (RFC 5737) and the reserved name of RFC 2606.
        for address in ["192.0.2.1:0", "nowhere.invalid:80", "no-port", "127.0.0.1:65536"] {
            let text = failure(address).await;
            assert!(text.contains(address) && text.contains("PRODUCER_LISTEN"), "{text}");
        }
    }

    #[test]
    fn a_permission_error_says_why() {
        let denied = ErrorKind::PermissionDenied.into();
        let text = BindError::new("127.0.0.1:80", "producer", &denied, "--listen", "LISTEN");
        assert!(text.to_string().contains("1024"), "{text}");
    }

    #[test]
    fn the_guard_lets_loopback_through_and_nothing_else() {
        let guarded = |text: &str, insecure| {
            check_exposure(
                text.parse().expect("an address"),
                insecure,
                "--listen",
                "PRODUCER_LISTEN",
            )
        };
        for open in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert!(guarded(open, false).is_ok(), "{open}");
        }
        for exposed in ["0.0.0.0:8080", "[::]:8080", "192.168.1.7:8080", "[::ffff:10.0.0.1]:8080"] {
            let text = guarded(exposed, false).expect_err("an exposed address").to_string();
            for part in
                ["authentication", "--insecure", "--listen 127.0.0.1:8080", "PRODUCER_LISTEN"]
            {
                assert!(text.contains(part), "{part:?} is missing: {text}");
            }
            assert!(guarded(exposed, true).is_ok(), "{exposed}");
        }
    }
}
