//! One question over HTTP/1.1, without a token: what is not public stays unanswered.

use std::io::{Error, Read as _, Result, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// The largest answer that is kept.
const BYTES_MAX: u64 = 4 << 20;

/// The answer's status line and body.
pub fn get(address: &str, path: &str, wait: Duration) -> Result<String> {
    let to = address.to_socket_addrs()?.next().ok_or_else(|| Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&to, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::other("not an answer"))?;
    Ok(format!("{}\n\n{body}", head.lines().next().unwrap_or_default()))
}
