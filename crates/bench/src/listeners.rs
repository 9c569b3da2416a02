//! Those who listen: connections that follow an inbox as Server-Sent Events. They read as little
//! of them as a measurement needs, because they run on the same processors as the server.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Of a listener's buffer, in bytes; many of them are open at a time.
const BUFFER: usize = 1 << 10;

/// One open stream.
#[derive(Debug)]
pub(crate) struct Listener {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Listener {
    /// Follows this user's inbox from now on. Returns when the stream has begun.
    pub(crate) async fn open(address: SocketAddr, user: i64) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /notifications/{user}/stream?since=0s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let stream = BufReader::with_capacity(BUFFER, stream);
        let mut listener = Self { stream, line: Vec::new() };
        if !listener.line().await?.starts_with(b"HTTP/1.1 200 ") {
            let said = String::from_utf8_lossy(&listener.line).into_owned();
            return Err(io::Error::other(format!("a stream was answered with {said}")));
        }
        while !listener.line().await?.starts_with(b"event: state") {}
        Ok(listener)
    }

    /// The number in the message of the next notification, as [`message`] wrote it.
    pub(crate) async fn next(&mut self) -> io::Result<usize> {
        loop {
            let line = self.line().await?;
            if line.starts_with(b"data: {\"from\"")
                && let Some(number) = number(line)
            {
                return Ok(number);
            }
        }
    }

    async fn line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        match self.stream.read_until(b'\n', &mut self.line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(&self.line),
        }
    }
}

/// A message that carries a number.
pub(crate) fn message(number: usize) -> String {
    format!("Bruno commented on your photo: “What a view!” #{number}#")
}

/// The number that a notification's JSON carries in its message.
pub(crate) fn number(json: &[u8]) -> Option<usize> {
    let begin = json.iter().position(|byte| *byte == b'#')? + 1;
    let length = json[begin..].iter().position(|byte| *byte == b'#')?;
    std::str::from_utf8(&json[begin..begin + length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_from_its_message() {
        assert_eq!(number(message(1042).as_bytes()), Some(1042));
        assert_eq!(number(b"no number"), None);
    }
}
