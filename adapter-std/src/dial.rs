//! Opens sockets, with their stages, for the two threads of a handle.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::dial::{Dialler, NEXT_ADDRESS, Target, after, at_address, interleave};

use crate::drive::{Split, read_onto};
#[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
use crate::staged::{Staged, StagedWriter};

/// A TCP socket or a Unix socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls the same method of either variant.
macro_rules! socket {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Self::Tcp($socket) => $call,
            #[cfg(unix)]
            Self::Unix($socket) => $call,
        }
    };
}

impl Socket {
    fn open(dialler: &Dialler, until: Instant) -> io::Result<Self> {
        Self::connect(dialler, until).map_err(|error| dialler.unreached(error))
    }

    fn connect(dialler: &Dialler, until: Instant) -> io::Result<Self> {
        match dialler.target() {
            Target::Tcp(host, port) => {
                #[cfg(feature = "srv")]
                if let Some(query) = dialler.srv()? {
                    let found = query.run(until)?;
                    let connect = |one: &mqtt_adapter_core::srv::Endpoint, by| {
                        tcp(dialler, &one.host, one.port, by)
                    };
                    return mqtt_adapter_core::srv::connect_blocking(&found, until, connect)
                        .map(Self::Tcp);
                }
                tcp(dialler, host, port, until).map(Self::Tcp)
            }
            #[cfg(unix)]
            Target::Unix(path) => unix(path).map(Self::Unix),
            #[cfg(not(unix))]
            Target::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            #[cfg(unix)]
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        socket!(self, socket => socket.set_read_timeout(timeout))
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        socket!(self, socket => socket.set_write_timeout(timeout))
    }

    pub(crate) fn shutdown(&self) {
        let _ = socket!(self, socket => socket.shutdown(Shutdown::Both));
    }
}

impl Read for Socket {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        socket!(self, socket => socket.read(space))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket!(self, socket => socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn unix(path: &str) -> io::Result<UnixStream> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return UnixStream::connect_addr(&name);
    }
    UnixStream::connect(path)
}

/// Connects to a port of a host.
#[cfg_attr(
    not(feature = "sockets"),
    allow(unused_variables, reason = "there are no settings of sockets then")
)]
fn tcp(dialler: &Dialler, host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
    let addresses = look_up(host, port, until)?;
    #[cfg(feature = "sockets")]
    if let Some(sockets) = dialler.sockets().cloned() {
        let connect = move |address: SocketAddr, limit| {
            let socket = sockets.open(address)?;
            socket.connect_timeout(&address.into(), limit)?;
            Ok(socket.into())
        };
        return race(addresses, until, connect);
    }
    race(addresses, until, open)
}

/// Returns the addresses of a name. The look-up of the system has no time limit, so a separate thread performs it.
fn look_up(host: &str, port: u16, until: Instant) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    thread::Builder::new().spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let _ = sender.send(found.map(Iterator::collect));
    })?;
    receiver
        .recv_timeout(until.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| Err(timed_out("looking up the name")))
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}

/// Connects to one address within this time.
pub(crate) fn open(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    // 3.1.1 [MQTT-7.1.2-1]: TCP keeps the order of bytes and loses none.
    TcpStream::connect_timeout(&address, limit)
}

/// Connects to the first of these addresses that answers. An address is tried when the one before it has failed, or has not
/// answered for [`NEXT_ADDRESS`]. Small packets are sent without delay.
pub(crate) fn race(
    addresses: impl IntoIterator<Item = SocketAddr>,
    until: Instant,
    connect: impl Fn(SocketAddr, Duration) -> io::Result<TcpStream> + Clone + Send + 'static,
) -> io::Result<TcpStream> {
    let mut waiting = interleave(addresses).into_iter();
    let (sender, receiver) = mpsc::channel();
    let mut why = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let (mut trying, mut left) = (0_usize, true);
    loop {
        if left {
            match waiting.next() {
                Some(address) => {
                    trying += 1;
                    attempt(address, until, connect.clone(), sender.clone());
                }
                None => left = false,
            }
        }
        if trying == 0 && !left {
            return Err(why);
        }
        let rest = until.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(if left { rest.min(NEXT_ADDRESS) } else { rest }) {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Ok(Err(error)) => {
                trying -= 1;
                why = error;
            }
            Err(RecvTimeoutError::Timeout) if rest > NEXT_ADDRESS => {}
            Err(_) => return Err(timed_out("connecting")),
        }
    }
}

/// The receiver drops the result, which closes the socket, when another address was faster.
fn attempt(
    address: SocketAddr,
    until: Instant,
    connect: impl Fn(SocketAddr, Duration) -> io::Result<TcpStream> + Send + 'static,
    sender: Sender<io::Result<TcpStream>>,
) {
    let refused = sender.clone();
    let spawned = thread::Builder::new().spawn(move || {
        let rest = until.saturating_duration_since(Instant::now());
        let connected = if rest.is_zero() {
            Err(timed_out("connecting"))
        } else {
            connect(address, rest)
        };
        let _ = sender.send(connected.map_err(|why| at_address(address, why)));
    });
    // Without a thread the attempt has failed, and a later one may have one.
    if let Err(why) = spawned {
        let _ = refused.send(Err(at_address(address, why)));
    }
}

/// A socket, with stages if the scheme needs them.
#[derive(Debug)]
pub(crate) enum Line {
    Plain(Socket),
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    Staged(Staged),
}

/// The writing half of a [`Line`].
#[derive(Debug)]
pub(crate) enum LineWriter {
    Plain(Socket),
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    Staged(StagedWriter),
}

impl Line {
    /// Opens a socket and performs the handshakes within `timeout`.
    pub(crate) fn dial(dialler: &Dialler, timeout: Duration) -> io::Result<Self> {
        let until = after(timeout);
        #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
        if let Some(stages) = dialler.stages()? {
            let socket = Socket::open(dialler, until)?;
            let staged = Staged::open(socket, stages, until);
            return staged
                .map(Self::Staged)
                .map_err(|error| dialler.unopened(error));
        }
        #[cfg(not(any(feature = "proxy", feature = "tls", feature = "websocket")))]
        dialler.check()?;
        Socket::open(dialler, until).map(Self::Plain)
    }
}

impl Read for Line {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(space),
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged(staged) => staged.read(space),
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged(staged) => staged.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged(staged) => staged.flush(),
        }
    }
}

impl Split for Line {
    type Writer = LineWriter;

    fn writer(&self) -> io::Result<LineWriter> {
        match self {
            Self::Plain(socket) => {
                let writer = socket.try_clone()?;
                writer.set_write_timeout(Some(Duration::from_secs(1)))?;
                Ok(LineWriter::Plain(writer))
            }
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged(staged) => Ok(LineWriter::Staged(staged.writer())),
        }
    }

    fn fill(&mut self, input: &mut BytesMut, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => read_onto(socket, input, space),
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged(staged) => staged.fill(input),
        }
    }

    fn hang_up(writer: &mut LineWriter) {
        match writer {
            LineWriter::Plain(socket) => socket.shutdown(),
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            LineWriter::Staged(staged) => staged.hang_up(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// Connects to `dead`, whose attempts end when the returned sender is dropped, and to other addresses as usual.
    fn connect_except(
        dead: SocketAddr,
    ) -> (
        Sender<()>,
        impl Fn(SocketAddr, Duration) -> io::Result<TcpStream> + Clone + Send + 'static,
    ) {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let connect = move |address, limit| {
            if address == dead {
                let _ = receiver
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv();
                return Err(timed_out("connecting"));
            }
            open(address, limit)
        };
        (sender, connect)
    }

    #[test]
    fn an_address_behind_a_dead_one_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (dead, live) = (
            "127.0.0.1:1".parse().unwrap(),
            listener.local_addr().unwrap(),
        );
        let (_ends, connect) = connect_except(dead);
        let until = Instant::now() + Duration::from_secs(60);
        let socket = race([dead, live], until, connect).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), live);
    }

    #[test]
    fn all_addresses_have_one_time_limit() {
        let dead = "127.0.0.1:1".parse().unwrap();
        let (_ends, connect) = connect_except(dead);
        let until = Instant::now() + Duration::from_millis(50);
        let error = race([dead; 100], until, connect).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
