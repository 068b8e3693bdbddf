//! The dialogue with a proxy, as a stage.

use bytes::BytesMut;

use super::header::ProxyHeader;
use super::http::{self, HttpConnect};
use super::socks::Socks5;
use super::{ProxyKind, ProxyOptions};
use crate::error::{Error, ErrorKind};
use crate::queue::Queue;
use crate::stack::{Peer, Stage};

/// The dialogue with a proxy before the bytes pass, as the lowest stage.
#[derive(Debug)]
pub struct ProxyStage {
    exchange: Exchange,
    is_open: bool,
    queue: Queue,
    failed: Option<Error>,
}

#[derive(Debug)]
enum Exchange {
    Socks5(Socks5),
    Http(HttpConnect),
    Header(ProxyHeader),
}

impl ProxyStage {
    /// Asks a proxy for a connection to `host`, which is a name or an address.
    ///
    /// # Errors
    /// The protocol of the proxy cannot carry the host or the credentials.
    pub fn client(proxy: &ProxyOptions, host: &str, port: u16) -> Result<Self, Error> {
        let mut queue = Queue::default();
        let exchange = match proxy.kind {
            ProxyKind::Socks5 => Exchange::Socks5(Socks5::new(proxy, host, port, &mut queue)?),
            ProxyKind::Http => {
                let request = http::request(proxy, host, port)?;
                queue.0.extend_from_slice(request.as_bytes());
                Exchange::Http(HttpConnect::new())
            }
        };
        Ok(Self::new(exchange, queue))
    }

    /// Reads the header of the PROXY protocol, version 1 or 2, which a proxy in front of this server writes. Use it only for
    /// connections from known proxies, since other clients can write any address.
    #[must_use]
    pub fn header() -> Self {
        Self::new(Exchange::Header(ProxyHeader::default()), Queue::default())
    }

    fn new(exchange: Exchange, queue: Queue) -> Self {
        Self {
            exchange,
            is_open: false,
            queue,
            failed: None,
        }
    }
}

impl Stage for ProxyStage {
    fn input(&mut self, mut wire: &[u8], plain: &mut BytesMut) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.is_open {
            let taken = match &mut self.exchange {
                Exchange::Socks5(socks) => socks.take(&mut wire, &mut self.queue),
                Exchange::Http(http) => http.take(&mut wire),
                Exchange::Header(header) => header.take(&mut wire),
            };
            self.failed = taken.as_ref().err().cloned();
            self.is_open = taken?;
        }
        if self.is_open {
            plain.extend_from_slice(wire);
        }
        Ok(())
    }

    fn output(&mut self, plain: &[u8]) -> usize {
        if !self.is_open {
            return 0;
        }
        let n = plain.len().min(self.queue.room());
        let bytes = plain.get(..n).unwrap_or_default();
        self.queue.0.extend_from_slice(bytes);
        n
    }

    fn outgoing(&self) -> &[u8] {
        self.queue.as_slice()
    }

    fn sent(&mut self, n: usize) {
        self.queue.sent(n);
    }

    fn end_of_file(&mut self) -> Result<(), Error> {
        if self.is_open || self.failed.is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::HandshakeCut,
            match self.exchange {
                Exchange::Header(_) => {
                    "the connection ended before the header of the PROXY protocol was whole"
                }
                _ => "the proxy closed the connection before it had connected",
            },
        ))
    }

    /// Does nothing: the dialogue with a proxy has no end of its own.
    fn close(&mut self) {}

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn is_passed(&self) -> bool {
        self.is_open
    }

    fn describe(&self, peer: &mut Peer) {
        if let Exchange::Header(header) = &self.exchange {
            peer.address = header.address.or(peer.address);
        }
    }
}
