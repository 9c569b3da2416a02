//! Long-lived responses, such as event streams, leave hyper after their head is written.
//!
//! hyper keeps two buffers of 8 KiB and its state machine for the whole response: 20 KB for an idle
//! stream. A detached stream costs its body, a socket and a small task. The bytes on the wire are
//! the same: chunks (RFC 9112, section 7.1), then the connection is closed.
//!
//! Only HTTP/1.1 connections are detached: the streams of an HTTP/2 connection share its buffers.

use std::{
    future::Future,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, Response, Version},
};
use bytes::{Buf as _, Bytes};
use futures_util::stream;
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
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

    /// The connection that hyper has left, if the client may still send. `None` if it has closed its
    /// side, or the connection was upgraded.
    pub(crate) fn into_open_stream(self: Arc<Self>) -> Option<TcpStream> {
        let stream = Arc::into_inner(self)?.stream.into_inner()?;
        (!matches!(stream.try_read(&mut [0; 1]), Ok(0))).then_some(stream)
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

/// Time and bytes that a client may still send after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 16 << 20;

/// Reads what the client still sends after the last response, such as the rest of a body that was
/// refused, until it closes its side. Closing a socket with unread bytes would reset the connection,
/// and the client might never see the response (RFC 9112, section 9.6). Keeps `held` until then.
pub(crate) async fn linger<H: Send>(mut stream: TcpStream, held: H) {
    let discard = async {
        let mut bytes = vec![0; 16 << 10];
        let mut left = MAX_LINGER_BYTES;
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    // If it takes longer, the connection is reset.
    let _ = timeout(LINGER_TIMEOUT, discard).await;
    drop(held);
}

/// Writes the body until it ends, the client closes or reads nothing for `write_timeout`, or `cut` is
/// cancelled. Keeps `held` until then.
pub(crate) fn write_body<H: Send>(
    stream: TcpStream,
    body: Body,
    write_timeout: Duration,
    cut: CancellationToken,
    held: H,
) -> impl Future<Output = ()> + Send {
    let chunk = Bytes::new();
    let mut writer =
        BodyWriter { stream, body, chunk, has_ended: false, write_timeout, stalled: None };
    // The block borrows what it captured. A local variable would double its place in the task.
    async move {
        let _held = &held;
        tokio::select! {
            biased;
            written = &mut writer => if let Err(error) = written {
                tracing::debug!(target: "http", %error, "a stream failed");
            },
            () = cut.cancelled() => {}
        }
    }
}

/// Writes a body in chunks.
///
/// It polls the socket directly, because a socket keeps the last waker of each direction that polled
/// it: as long as hyper's were there, the finished task of hyper's connection would stay in memory.
struct BodyWriter {
    stream: TcpStream,
    body: Body,
    /// Bytes that are not written yet.
    chunk: Bytes,
    has_ended: bool,
    write_timeout: Duration,
    /// Set while the kernel takes no byte.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Future for BodyWriter {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> IoPoll<()> {
        let this = &mut *self;
        loop {
            while !this.chunk.is_empty() {
                let written = Pin::new(&mut this.stream).poll_write(cx, &this.chunk);
                let written = watch_progress(&mut this.stalled, this.write_timeout, written, cx);
                match ready!(written)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => this.chunk.advance(count),
                }
            }
            this.chunk = Bytes::new();
            if this.has_ended {
                return Pin::new(&mut this.stream).poll_shutdown(cx);
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let data = frame.map_err(io::Error::other)?.into_data();
                    this.chunk = data.map(encode_chunk).unwrap_or_default();
                }
                Poll::Ready(None) => {
                    this.has_ended = true;
                    this.chunk = Bytes::from_static(b"0\r\n\r\n");
                }
                Poll::Pending => return poll_close(&mut this.stream, cx).map(Ok),
            }
        }
    }
}

/// A chunk of RFC 9112; empty without data, because an empty chunk would be the last one.
fn encode_chunk(data: Bytes) -> Bytes {
    if data.is_empty() {
        return data;
    }
    let mut chunk = Vec::with_capacity(data.len() + 20);
    // Writing to a vector cannot fail.
    let _ = write!(chunk, "{:x}\r\n", data.len());
    chunk.extend_from_slice(&data);
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

/// Resolves when the client closes its side. Discards anything it sends.
fn poll_close(stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut bytes = [0; 64];
        let mut sent = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut sent)) {
            Ok(()) if !sent.filled().is_empty() => {}
            Ok(()) | Err(_) => return Poll::Ready(()),
        }
    }
}

/// Fails once writes have made no progress for `write_timeout`.
fn watch_progress<T>(
    stalled: &mut Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    written: IoPoll<T>,
    cx: &mut Context<'_>,
) -> IoPoll<T> {
    if written.is_ready() {
        *stalled = None;
        return written;
    }
    let stalled = stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
    stalled.as_mut().poll(cx).map(|()| Err(not_reading()))
}

fn not_reading() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not read")
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

    fn watch_progress<T>(&mut self, written: IoPoll<T>, cx: &mut Context<'_>) -> IoPoll<T> {
        watch_progress(&mut self.stalled, self.write_timeout, written, cx)
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
