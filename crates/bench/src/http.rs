//! HTTP/1.1 clients of a measurement: a kept-alive connection, and a stream of Server-Sent Events.
//! They parse as little as our servers' answers need, because they share the processors with the
//! servers and must cost far less.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Small, because a fanout holds thousands of streams.
const EVENT_BUFFER_BYTES: usize = 1 << 10;

/// One kept-alive connection. It expects a `Content-Length` in every answer.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl HttpConnection {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = connect_tcp(address).await?;
        Ok(Self { stream, answer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a whole request and reads its answer: the status and the body.
    pub(crate) async fn send_request(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let body = loop {
            self.read_more().await?;
            if let Some(end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let (status, length) = parse_head(&self.answer[..body]).ok_or(ErrorKind::InvalidData)?;
        while self.answer.len() < body + length {
            self.read_more().await?;
        }
        Ok((status, &self.answer[body..]))
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The status and the announced length of the body.
fn parse_head(head: &[u8]) -> Option<(u16, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, length?))
}

/// A GET request for this path.
pub(crate) fn get_request(path: &str) -> Vec<u8> {
    get_request_with(path, "")
}

/// The same with more headers, each of which ends its line.
pub(crate) fn get_request_with(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{headers}\r\n")
        .into_bytes()
}

/// POST /send as a form, from user 2, with more headers.
pub(crate) fn send_request(to: i64, message: &str, headers: &str) -> Vec<u8> {
    let form = format!("from_id=2&to_id={to}&message={message}");
    format!(
        "POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         {headers}Content-Length: {}\r\n\r\n{form}",
        form.len(),
    )
    .into_bytes()
}

/// Creates or renames a user.
pub(crate) fn put_user_request(id: i64, name: &str, headers: &str) -> Vec<u8> {
    let body = format!("{{\"name\":\"{name}\"}}");
    let length = body.len();
    format!(
        "PUT /users/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An open stream of an inbox's events.
#[derive(Debug)]
pub(crate) struct EventStream {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
    cursor: String,
}

impl EventStream {
    /// Subscribes to this user's inbox from now on. Returns after the first `state` event.
    pub(crate) async fn open(address: SocketAddr, user: i64) -> io::Result<Self> {
        Self::request(address, user, "").await
    }

    /// Subscribes again, from this cursor on.
    pub(crate) async fn resume(address: SocketAddr, user: i64, cursor: &str) -> io::Result<Self> {
        Self::request(address, user, &format!("Last-Event-ID: {cursor}\r\n")).await
    }

    async fn request(address: SocketAddr, user: i64, headers: &str) -> io::Result<Self> {
        let mut stream = connect_tcp(address).await?;
        let request = format!(
            "GET /notifications/{user}/stream?since=0s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let stream = BufReader::with_capacity(EVENT_BUFFER_BYTES, stream);
        let mut events = Self { stream, line: Vec::new(), cursor: String::new() };
        if !events.read_line().await?.starts_with(b"HTTP/1.1 200 ") {
            let status = String::from_utf8_lossy(&events.line).into_owned();
            return Err(io::Error::other(format!("a stream was answered with {status}")));
        }
        // Missed notifications come before the state.
        if headers.is_empty() {
            while !events.read_line().await?.starts_with(b"event: state") {}
        }
        Ok(events)
    }

    /// The cursor of the last event.
    pub(crate) fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Waits for the next notification; returns the number that [`numbered_message`] put into it.
    pub(crate) async fn next_number(&mut self) -> io::Result<usize> {
        loop {
            let line = self.read_line().await?;
            if line.starts_with(b"data: {\"from\"")
                && let Some(number) = parse_number(line)
            {
                return Ok(number);
            }
        }
    }

    async fn read_line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        if self.stream.read_until(b'\n', &mut self.line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(cursor) = self.line.strip_prefix(b"id: ") {
            self.cursor = String::from_utf8_lossy(cursor.trim_ascii()).into_owned();
        }
        Ok(&self.line)
    }
}

/// A message that carries a number.
pub(crate) fn numbered_message(number: usize) -> String {
    format!("Bruno commented on your photo: “What a view!” #{number}#")
}

/// The number in a notification's JSON, if its message carries one.
pub(crate) fn parse_number(json: &[u8]) -> Option<usize> {
    let begin = json.iter().position(|byte| *byte == b'#')? + 1;
    let length = json[begin..].iter().position(|byte| *byte == b'#')?;
    std::str::from_utf8(&json[begin..begin + length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_without_a_length_is_refused() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"), Some((200, 12)));
        assert_eq!(parse_head(b"HTTP/1.1 503 Away\r\ncontent-length:0\r\n\r\n"), Some((503, 0)));
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), None);
    }

    #[test]
    fn a_number_comes_back_from_its_message() {
        assert_eq!(parse_number(numbered_message(1042).as_bytes()), Some(1042));
        assert_eq!(parse_number(b"no number"), None);
    }
}
