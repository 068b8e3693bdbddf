//! A socket of the poll of all connections, as a transport that never waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::task::Poll;

use mio::{Interest, Registry, Token};

use crate::link::Wire;
use crate::listener::Accepted;

/// A socket of the system.
#[derive(Debug)]
enum Socketed {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

/// A socket with what is known of its state.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socketed,
    /// Whether the last event or call showed that a read may return bytes.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Whether the client has ended its stream: the remaining bytes must be read.
    pub(crate) ends: bool,
}

impl Stream {
    /// Registers an accepted socket with the poll.
    pub(crate) fn new(accepted: Accepted, registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            socket: Socketed::new(accepted, registry, token)?,
            readable: false,
            writable: true,
            ends: false,
        })
    }

    /// Registers a socket that another thread has deregistered from its poll.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socketed::Tcp(stream) => registry.register(stream, token, BOTH),
            Socketed::Unix(stream) => registry.register(stream, token, BOTH),
        }
    }

    /// Returns the socket of a stream that was deregistered, for a task of its own.
    pub(crate) fn into_accepted(self) -> io::Result<Accepted> {
        Ok(match self.socket {
            Socketed::Tcp(stream) => {
                let stream = std::net::TcpStream::from(OwnedFd::from(stream));
                Accepted::Tcp(tokio::net::TcpStream::from_std(stream)?)
            }
            Socketed::Unix(stream) => {
                let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(stream));
                Accepted::Unix(tokio::net::UnixStream::from_std(stream)?)
            }
        })
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Socketed::Tcp(stream) => registry.deregister(stream),
            Socketed::Unix(stream) => registry.deregister(stream),
        }
    }
}

impl Stream {
    fn write_by(
        &mut self,
        write: impl Fn(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if !self.writable {
            return Poll::Pending;
        }
        let written = retried(|| match &mut self.socket {
            Socketed::Tcp(stream) => write(stream),
            Socketed::Unix(stream) => write(stream),
        });
        self.writable = written.is_ready();
        written
    }
}

/// The events of a socket that the poll reports.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Socketed {
    fn new(accepted: Accepted, registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(match accepted {
            Accepted::Tcp(stream) => {
                let mut stream = mio::net::TcpStream::from_std(stream.into_std()?);
                registry.register(&mut stream, token, BOTH)?;
                Self::Tcp(stream)
            }
            Accepted::Unix(stream) => {
                let mut stream = mio::net::UnixStream::from_std(stream.into_std()?);
                registry.register(&mut stream, token, BOTH)?;
                Self::Unix(stream)
            }
        })
    }
}

impl Wire for Stream {
    fn read(&mut self, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.readable {
            return Poll::Pending;
        }
        let read = retried(|| match &mut self.socket {
            Socketed::Tcp(stream) => stream.read(space),
            Socketed::Unix(stream) => stream.read(space),
        });
        // A read that does not fill the buffer took all bytes; the system reports new ones.
        self.readable = match &read {
            Poll::Ready(Ok(n)) => *n == space.len() || self.ends,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        read
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write_by(|stream| stream.write(bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write_by(|stream| stream.write_vectored(slices))
    }

    fn shut_down(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.socket {
            Socketed::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socketed::Unix(stream) => stream.shutdown(Shutdown::Write),
        })
    }
}

fn retried(mut work: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}
