//! A TCP proxy in front of a server, which delays or cuts what some of its clients send or receive.
//!
//! A client of Kafka is known by its `client.id`, which stands in the header of every request. All
//! other clients have the empty name. A broker behind the proxy must be started with
//! `scripts/real start kafka NAME --advertise PORT`, with the proxy's port.

use std::{collections::HashMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

/// Chunks of one direction of one connection that wait in the proxy.
const MAX_CHUNKS: usize = 1024;
const CHUNK_BYTES: usize = 64 << 10;

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: responses.
    ToClient,
}

/// What happens to the bytes of one client, by direction.
#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    delay: [Duration; 2],
    /// The bytes wait in the proxy, as a network that drops all packets lets them wait at the
    /// sender. The connection stays open.
    cut: [bool; 2],
}

/// The faults by the name of the client.
type Faults = HashMap<String, Fault>;

/// A proxy on a free port of the loopback interface. Dropping it closes all connections.
pub struct TcpProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    server: watch::Sender<Option<SocketAddr>>,
    task: AbortHandle,
}

impl TcpProxy {
    /// Listens. Connections wait until [`set_server`](Self::set_server).
    pub async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, server) = (watch::Sender::default(), watch::Sender::default());
        let accept = accept_clients(listener, faults.clone(), server.subscribe());
        let task = tokio::spawn(accept).abort_handle();
        Ok(Self { address, faults, server, task })
    }

    /// Sets where connections go.
    pub fn set_server(&self, server: SocketAddr) {
        self.server.send_replace(Some(server));
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays what this client sends or receives.
    pub fn set_delay(&self, client: &str, direction: Direction, delay: Duration) {
        self.change_fault(client, |fault| fault.delay[direction as usize] = delay);
    }

    /// Holds back what this client sends or receives, or lets it through again.
    pub fn set_cut(&self, client: &str, direction: Direction, cut: bool) {
        self.change_fault(client, |fault| fault.cut[direction as usize] = cut);
    }

    /// Ends all delays and cuts.
    pub fn heal(&self) {
        self.faults.send_replace(Faults::new());
    }

    fn change_fault(&self, client: &str, change: impl FnOnce(&mut Fault)) {
        self.faults.send_modify(|faults| change(faults.entry(client.to_owned()).or_default()));
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_clients(
    listener: TcpListener,
    faults: watch::Sender<Faults>,
    mut server: watch::Receiver<Option<SocketAddr>>,
) {
    let mut connections = JoinSet::new();
    let Ok(server) = server.wait_for(Option::is_some).await.map(|server| *server) else { return };
    while let (Ok((client, _)), Some(server)) = (listener.accept().await, server) {
        let faults = faults.subscribe();
        connections.spawn(async move {
            // An error ends this connection alone, for both sides.
            let _ = join_connection(client, server, faults).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn join_connection(
    client: TcpStream,
    server: SocketAddr,
    faults: watch::Receiver<Faults>,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut first = vec![0; CHUNK_BYTES];
    let length = from_client.read(&mut first).await?;
    first.truncate(length);
    let name = kafka_client_id(&first).unwrap_or_default();
    let forward = |first, from, to, direction| {
        copy_chunks(
            first,
            from,
            to,
            ConnectionFaults { name: name.clone(), direction, faults: faults.clone() },
        )
    };
    // Either side's end ends the connection.
    tokio::select! {
        copied = forward(first, from_client, to_server, Direction::ToServer) => copied,
        copied = forward(Vec::new(), from_server, to_client, Direction::ToClient) => copied,
    }
}

/// The `client_id` of a Kafka request: after its size, API key, API version and correlation id
/// (header v1 and v2 of the Kafka protocol).
fn kafka_client_id(request: &[u8]) -> Option<String> {
    let length = request.get(12..14)?.try_into().ok().map(i16::from_be_bytes)?;
    let id = request.get(14..14 + usize::try_from(length).ok()?)?;
    String::from_utf8(id.to_vec()).ok()
}

/// The faults of one direction of one connection.
struct ConnectionFaults {
    name: String,
    direction: Direction,
    faults: watch::Receiver<Faults>,
}

impl ConnectionFaults {
    /// Waits until a chunk that arrived at `arrived` may be passed on.
    async fn await_passage(&mut self, arrived: Instant) {
        loop {
            let fault = self.faults.borrow_and_update().get(&self.name).copied();
            let fault = fault.unwrap_or_default();
            let direction = self.direction as usize;
            let due = arrived + fault.delay[direction];
            if !fault.cut[direction] && due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due), if !fault.cut[direction] => {}
                changed = self.faults.changed() => if changed.is_err() { return },
            }
        }
    }
}

async fn copy_chunks(
    first: Vec<u8>,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: ConnectionFaults,
) -> io::Result<()> {
    let (chunks, mut waiting) = mpsc::channel(MAX_CHUNKS);
    let read = async move {
        let mut chunk = first;
        loop {
            if !chunk.is_empty() && chunks.send((Instant::now(), chunk)).await.is_err() {
                return Ok(());
            }
            let mut buffer = vec![0; CHUNK_BYTES];
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            buffer.truncate(length);
            chunk = buffer;
        }
    };
    let write = async {
        while let Some((arrived, chunk)) = waiting.recv().await {
            faults.await_passage(arrived).await;
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    // The end, too, passes after all that was sent before it.
    let (read, written): (io::Result<()>, io::Result<()>) = tokio::join!(read, write);
    read.and(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::until;

    /// An `ApiVersions` request of this client.
    fn request(client_id: &str) -> Vec<u8> {
        let length = i16::try_from(client_id.len()).expect("short").to_be_bytes();
        [&[0, 0, 0, 9, 0, 18, 0, 3, 0, 0, 0, 1][..], &length, client_id.as_bytes()].concat()
    }

    /// A server that sends back what it gets.
    async fn start_echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn echo(stream: &mut TcpStream, bytes: &[u8]) {
        stream.write_all(bytes).await.expect("written");
        let mut answer = vec![0; bytes.len()];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, bytes);
    }

    #[tokio::test]
    async fn one_client_s_answers_are_late_and_another_s_are_not() {
        const LATE: Duration = Duration::from_millis(300);
        let proxy = TcpProxy::listen().await.expect("a free port");
        proxy.set_server(start_echo().await);
        proxy.set_delay("slow", Direction::ToClient, LATE);
        let mut slow = TcpStream::connect(proxy.address()).await.expect("connected");
        let mut other = TcpStream::connect(proxy.address()).await.expect("connected");
        let asked = Instant::now();
        echo(&mut slow, &request("slow")).await;
        assert!(asked.elapsed() >= LATE);
        proxy.set_cut("slow", Direction::ToServer, true);
        echo(&mut other, &request("other")).await;
    }

    #[tokio::test]
    async fn what_was_cut_arrives_when_the_cut_is_healed() {
        let proxy = TcpProxy::listen().await.expect("a free port");
        proxy.set_server(start_echo().await);
        let mut client = TcpStream::connect(proxy.address()).await.expect("connected");
        echo(&mut client, &request("cut")).await;
        proxy.set_cut("cut", Direction::ToServer, true);
        client.write_all(b"held").await.expect("written");
        let mut answer = [0; 4];
        let held = tokio::time::timeout(Duration::from_millis(100), client.read(&mut answer));
        assert!(held.await.is_err());
        proxy.heal();
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"held");
        // The end of either side is passed on.
        drop(client);
        until(async || if proxy.faults.receiver_count() == 0 { Ok(()) } else { Err("open") }).await;
    }
}
