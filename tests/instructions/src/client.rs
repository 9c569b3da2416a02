//! A client of one connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::Failure;

pub(crate) struct Client {
    address: SocketAddr,
    connection: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        Ok(Self { address, connection: BufReader::new(connection) })
    }

    /// Sends a request, and returns the response's body. Any other status than 200 is an error.
    pub(crate) fn request(
        &mut self,
        line: &str,
        headers: &str,
        body: &str,
    ) -> Result<String, Failure> {
        let status = self.start_request(line, headers, body)?;
        let body = self.read_body()?;
        if status.starts_with("HTTP/1.1 200") { Ok(body) } else { Err(body.into()) }
    }

    /// Sends a request, and returns the response's first line. Each of the headers ends its line.
    pub(crate) fn start_request(
        &mut self,
        line: &str,
        headers: &str,
        body: &str,
    ) -> Result<String, Failure> {
        let (address, length) = (self.address, body.len());
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        self.read_line()
    }

    fn read_body(&mut self) -> Result<String, Failure> {
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_chunked |= line == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
        }
        if !is_chunked {
            return self.read_text(length);
        }
        let mut body = String::new();
        loop {
            let length = usize::from_str_radix(&self.read_line()?, 16)?;
            body += &self.read_text(length)?;
            self.read_line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// The next line, without its end.
    pub(crate) fn read_line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.connection.read_line(&mut line)? == 0 {
            return Err("the service closed the connection".into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn read_text(&mut self, length: usize) -> Result<String, Failure> {
        let mut text = vec![0; length];
        self.connection.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }
}
