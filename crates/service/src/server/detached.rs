//! Long-lived responses, such as event streams, leave hyper after their head is written.
//!
//! hyper keeps two buffers of 8 KiB and its state machine for the whole response: 20 KB for an idle
//! stream. A detached stream costs its body, a socket and a small task. The bytes on the wire are
//! the same: chunks (RFC 9112, section 7.1), then the connection is closed.
//!
//! Only HTTP/1.1 connections are detached: the streams of an HTTP/2 connection share its buffers.

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
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A response extension: the body is long-lived and may leave hyper.
#[derive(Debug, Clone, Copy)]
pub struct StreamingResponse;

/// A connection that may leave hyper.
#[derive(Debug, Default)]
pub(crate) struct DetachedConnection {
    stream: Mutex<Option<TcpStream>>,
    /// The long-lived body, once the handler has answered with one.
    body: Mutex<Option<Body>>,
    /// True once hyper has flushed everything, the head included.
    flushed: AtomicBool,
}

/// hyper's reader and writer of the connection.
#[derive(Debug)]
pub(crate) struct HyperIo {
    connection: Arc<DetachedConnection>,
    /// Bounds a write during which the client reads no byte.
    write_timeout: Duration,
    /// Set while the kernel takes no byte.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl DetachedConnection {
    pub(crate) fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream: Mutex::new(Some(stream)), ..Self::default() })
    }

    pub(crate) fn hyper_io(self: &Arc<Self>, write_timeout: Duration) -> HyperIo {
        HyperIo { connection: Arc::clone(self), write_timeout, stalled: None }
    }

    /// Returns true if the response to this request may leave hyper.
    pub(crate) fn can_detach(request: &Request<impl Sized>) -> bool {
        // A HEAD response has no body.
        request.version() == Version::HTTP_11 && request.method() == Method::GET
    }

    /// Keeps a long-lived body and gives hyper one that never yields.
    pub(crate) fn keep_body(&self, response: &mut Response<Body>) {
        if response.extensions().get::<StreamingResponse>().is_some() {
            let silent = Body::from_stream(stream::pending::<Result<Bytes, io::Error>>());
            *self.body.lock() = Some(std::mem::replace(response.body_mut(), silent));
        }
    }

    /// Polls hyper's connection until it ends or its body can be detached, which then must be dropped.
    pub(crate) fn poll_until_detached<C: Future>(
        &self,
        connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<C::Output, (TcpStream, Body)>> {
        match connection.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Ok(ended)),
            Poll::Pending => {
                self.take_parts().map_or(Poll::Pending, |taken| Poll::Ready(Err(taken)))
            }
        }
    }

    /// The connection and its body, once hyper has flushed the head. hyper's side must then be
    /// dropped.
    fn take_parts(&self) -> Option<(TcpStream, Body)> {
        if !self.flushed.load(Ordering::Relaxed) {
            return None;
        }
        Some((self.stream.lock().take()?, self.body.lock().take()?))
    }
}

/// Writes the body until it ends, the client closes or reads nothing for `write_timeout`, or `cut` is
/// cancelled.
pub(crate) async fn write_body(
    mut stream: TcpStream,
    body: Body,
    write_timeout: Duration,
    cut: CancellationToken,
) {
    let written = tokio::select! {
        written = write_chunks(&mut stream, body, write_timeout) => written,
        () = cut.cancelled() => return,
    };
    if let Err(error) = written {
        tracing::debug!(target: "http", %error, "a stream failed");
    }
}

async fn write_chunks(
    stream: &mut TcpStream,
    mut body: Body,
    write_timeout: Duration,
) -> io::Result<()> {
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
            write_all(stream, chunk.freeze(), write_timeout).await?;
        }
    }
    write_all(stream, Bytes::from_static(b"0\r\n\r\n"), write_timeout).await?;
    stream.shutdown().await
}

async fn write_all(
    stream: &mut TcpStream,
    mut bytes: Bytes,
    write_timeout: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(write_timeout, stream.write_buf(&mut bytes)).await;
        written.map_err(|_| not_reading())??;
    }
    Ok(())
}

fn not_reading() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not read")
}

/// Resolves when the client closes its side. Discards anything it sends.
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

type IoPoll<T> = Poll<io::Result<T>>;

impl HyperIo {
    /// Pending once the connection was taken: the caller is about to be dropped.
    fn poll_stream<T>(&self, poll: impl FnOnce(Pin<&mut TcpStream>) -> IoPoll<T>) -> IoPoll<T> {
        match &mut *self.connection.stream.lock() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Pending,
        }
    }

    /// Fails once writes have made no progress for the time-out.
    fn watch_progress<T>(&mut self, written: IoPoll<T>, cx: &mut Context<'_>) -> IoPoll<T> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write_timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(not_reading()))
    }
}

impl AsyncRead for HyperIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> IoPoll<()> {
        self.poll_stream(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for HyperIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> IoPoll<usize> {
        let written = self.poll_stream(|stream| stream.poll_write(cx, bytes));
        self.watch_progress(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> IoPoll<usize> {
        let written = self.poll_stream(|stream| stream.poll_write_vectored(cx, bytes));
        self.watch_progress(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> IoPoll<()> {
        // hyper flushes when its own buffer is empty. The body is kept before the head is written,
        // so the first flush after that includes the head.
        if self.connection.body.lock().is_some() {
            self.connection.flushed.store(true, Ordering::Relaxed);
        }
        self.poll_stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> IoPoll<()> {
        self.poll_stream(|stream| stream.poll_shutdown(cx))
    }
}
