//! Opens a blocking connection with TLS, WebSocket or a proxy over its socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::dial::{Dialler, Target, at_address, interleave};
use mqtt_adapter_core::srv::connect_blocking;
use mqtt_adapter_core::transport::Stack;

trait Socket: Read + Write {}

impl<T: Read + Write> Socket for T {}

/// A blocking connection with its stages.
pub(crate) struct Layered {
    socket: Box<dyn Socket>,
    stack: Stack,
}

impl Layered {
    /// Opens a connection and performs the handshakes; each wait takes at most `limit`.
    pub(crate) fn open(dialler: &Dialler, limit: Duration) -> io::Result<Self> {
        let mut layered = Self {
            socket: socket(dialler, limit).map_err(|error| dialler.unreached(error))?,
            stack: dialler.stages()?.unwrap_or_default(),
        };
        layered.shake().map_err(|error| dialler.unopened(error))?;
        Ok(layered)
    }

    /// Performs the handshakes.
    fn shake(&mut self) -> io::Result<()> {
        let mut early = Vec::new();
        while !self.stack.is_open() {
            self.flush()?;
            if self.read_once(&mut early)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush()
    }

    /// Sends all these bytes.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.stack.output(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            self.flush()?;
            // No outgoing bytes wait, so only an ended connection takes none.
            if taken == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    /// Appends read bytes to the buffer. Returns how many; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        while !self.stack.is_ended() {
            let read = self.read_once(buffer)?;
            if read == 0 || buffer.len() > before {
                break;
            }
        }
        Ok(buffer.len() - before)
    }

    /// Reads once from the socket, which may yield only a part of a handshake.
    fn read_once(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut space = [0; 4_096];
        let n = self.socket.read(&mut space)?;
        let mut plain = BytesMut::new();
        let result = match n {
            0 => self.stack.end_of_file(),
            n => self
                .stack
                .input(space.get(..n).unwrap_or_default(), &mut plain),
        };
        buffer.extend_from_slice(&plain);
        let sent = self.flush();
        result?;
        sent?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.stack.outgoing().is_empty() {
            let n = self.socket.write(self.stack.outgoing())?;
            self.stack.sent(n);
        }
        Ok(())
    }
}

fn socket(dialler: &Dialler, limit: Duration) -> io::Result<Box<dyn Socket>> {
    let (host, port) = match dialler.target() {
        Target::Tcp(host, port) => (host, port),
        Target::Unix(path) => return unix(path, limit),
    };
    if let Some(query) = dialler.srv()? {
        let until = query.until();
        let found = query.run(until)?;
        return connect_blocking(&found, until, |one, _| tcp(&one.host, one.port, limit));
    }
    tcp(host, port, limit)
}

/// Tries the addresses of a host one after the other. The limit covers all of them and the look-up of the name.
fn tcp(host: &str, port: u16, limit: Duration) -> io::Result<Box<dyn Socket>> {
    let until = Instant::now() + limit;
    let addresses = look_up(host.to_owned(), port, limit)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for (n, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        let left = until.saturating_duration_since(Instant::now()) / others;
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = at_address(*address, error),
        }
    }
    Err(last)
}

/// Looks the name up in a thread, because the system sets no limit of its own.
fn look_up(host: String, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let (sender, found) = mpsc::channel();
    std::thread::spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        let _ = sender.send(addresses.map(interleave));
    });
    match found.recv_timeout(limit) {
        Ok(addresses) => addresses,
        Err(_) => {
            let why = "the look-up of the name took too long";
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }
    }
}

#[cfg(unix)]
fn unix(path: &str, limit: Duration) -> io::Result<Box<dyn Socket>> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(limit))?;
    Ok(Box::new(stream))
}

#[cfg(not(unix))]
fn unix(_: &str, _: Duration) -> io::Result<Box<dyn Socket>> {
    Err(io::Error::other("this system has no Unix sockets"))
}
