//! Responses without an end, such as event streams, leave hyper once their head is out.
//!
//! hyper keeps two buffers of 8 KiB and its whole state machine for as long as a response lasts;
//! for a stream on which nothing happens that was 20 KB of a process's memory each, most of it for
//! nothing. Here such a stream costs its body, a socket and a small task. What is written is the
//! same: chunks (RFC 9112, section 7.1), then the connection is closed.
//!
//! Only HTTP/1.1 is handed over: the streams of an HTTP/2 connection share one set of buffers.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, Response, Version},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a client may take not a single byte of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Marks a response as one whose body may go on for ever. As an extension of the response.
#[derive(Debug, Clone, Copy)]
pub struct StreamingResponse;

/// A connection that hyper may have to give back.
#[derive(Debug, Default)]
pub(crate) struct DetachedConnection {
    stream: Mutex<Option<TcpStream>>,
    /// The endless body, when there is one.
    body: Mutex<Option<Body>>,
    /// Whether everything that hyper wrote, the head included, is with the system.
    flushed: AtomicBool,
}

/// hyper's side of the connection.
#[derive(Debug)]
pub(crate) struct HyperIo(Arc<DetachedConnection>);

impl DetachedConnection {
    /// Of this connection.
    pub(crate) fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream: Mutex::new(Some(stream)), ..Self::default() })
    }

    /// What hyper is to read from and write to.
    pub(crate) fn hyper_io(self: &Arc<Self>) -> HyperIo {
        HyperIo(Arc::clone(self))
    }

    /// Whether the answer to this request may be handed over, should it be endless.
    pub(crate) fn can_detach(request: &Request<impl Sized>) -> bool {
        // Of a HEAD only the head is answered.
        request.version() == Version::HTTP_11 && request.method() == Method::GET
    }

    /// Keeps the body of an endless response, and leaves hyper one that never says anything.
    pub(crate) fn keep_body(&self, response: &mut Response<Body>) {
        if response.extensions().get::<StreamingResponse>().is_some() {
            let silent = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
            *self.body.lock() = Some(std::mem::replace(response.body_mut(), silent));
        }
    }

    /// The connection and its body, once hyper has nothing more to do with them. hyper's side is
    /// cut off by that, and to be dropped.
    pub(crate) fn take_parts(&self) -> Option<(TcpStream, Body)> {
        if !self.flushed.load(Ordering::Relaxed) {
            return None;
        }
        Some((self.stream.lock().take()?, self.body.lock().take()?))
    }
}

/// Writes an endless body, until it ends after all, the client goes, or `cut` is cancelled.
pub(crate) async fn write_body(mut stream: TcpStream, body: Body, cut: CancellationToken) {
    let written = tokio::select! {
        written = write_chunks(&mut stream, body) => written,
        () = cut.cancelled() => return,
    };
    if let Err(error) = written {
        tracing::debug!(target: "http", %error, "a stream broke off");
    }
}

async fn write_chunks(stream: &mut TcpStream, mut body: Body) -> io::Result<()> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = await_close(stream) => return Ok(()),
        };
        let Some(frame) = frame else { break };
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data()
            && !data.is_empty()
        {
            let mut chunk = BytesMut::with_capacity(data.len() + 16);
            chunk.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
            chunk.put(data);
            chunk.put_slice(b"\r\n");
            write_all(stream, chunk.freeze()).await?;
        }
    }
    write_all(stream, Bytes::from_static(b"0\r\n\r\n")).await?;
    stream.shutdown().await
}

async fn write_all(stream: &mut TcpStream, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read");
        timeout(WRITE_TIMEOUT, stream.write_buf(&mut bytes)).await.map_err(stalled)??;
    }
    Ok(())
}

/// Resolves when the client has closed its side. It has nothing more to say.
async fn await_close(stream: &TcpStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0; 64]) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

impl HyperIo {
    /// None: the connection has been taken away, and whoever asks is about to be dropped.
    fn poll_stream<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.0.stream.lock() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for HyperIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_stream(|stream| stream.poll_read(context, into))
    }
}

impl AsyncWrite for HyperIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_stream(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_stream(|stream| stream.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty. The body is kept before the head is written,
        // so the first flush after that is that of the head.
        if self.0.body.lock().is_some() {
            self.0.flushed.store(true, Ordering::Relaxed);
        }
        self.poll_stream(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_stream(|stream| stream.poll_shutdown(context))
    }
}

/// Polls hyper's part of a connection until it ends, or an endless body is to be handed over.
pub(crate) async fn run_until_detached<C: Future>(
    mut connection: Pin<&mut C>,
    detached: &DetachedConnection,
) -> Result<C::Output, (TcpStream, Body)> {
    std::future::poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Ok(ended)),
        Poll::Pending => {
            detached.take_parts().map_or(Poll::Pending, |taken| Poll::Ready(Err(taken)))
        }
    })
    .await
}
