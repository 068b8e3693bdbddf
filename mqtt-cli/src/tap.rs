//! Wraps a transport and reports its packets, for `-d` and the demo.

use std::io;
use std::task::{Context, Poll};

use mqtt_adapter_core::bytes::BytesMut;
use mqtt_adapter_core::driver::Transport;
use mqtt_adapter_core::transport::{Protocol, detect};
use mqtt_tokio::proto::{Decoded, MAX_PACKET, Packet, Version};

use crate::anatomy;
use crate::printing::print_error;

/// The direction of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    In,
    Out,
}

/// Gets each packet and its summary. The transport fails if it returns [`Pass::Cut`].
pub(crate) type Watcher = Box<dyn FnMut(Way, &Packet<'_>, &str) -> Pass + Send>;

/// The action of the transport after a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pass {
    On,
    Cut,
}

/// A transport that may have a watcher.
pub(crate) struct Tap<T> {
    transport: T,
    /// Whether bytes were received, so that the protocol of the server is known.
    has_heard: bool,
    watched: Option<Watched>,
}

struct Watched {
    watcher: Watcher,
    version: Version,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    cut: bool,
}

impl Watched {
    fn watch(&mut self, way: Way, bytes: &[u8]) {
        let seen = match way {
            Way::In => &mut self.incoming,
            Way::Out => &mut self.outgoing,
        };
        seen.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Decoded::Packet { packet, consumed }) =
            Packet::decode(seen.get(at..).unwrap_or_default(), self.version, MAX_PACKET)
        {
            let own = seen.get(at..at + consumed).unwrap_or_default();
            let summary = anatomy::summary(own, &packet, self.version);
            self.cut |= (self.watcher)(way, &packet, &summary) == Pass::Cut;
            at += consumed;
        }
        seen.drain(..at);
    }
}

impl<T> Tap<T> {
    pub(crate) fn new(transport: T, version: Version, watcher: Option<Watcher>) -> Self {
        let watched = watcher.map(|watcher| Watched {
            watcher,
            version,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            cut: false,
        });
        Self {
            transport,
            has_heard: false,
            watched,
        }
    }

    fn watch(&mut self, way: Way, bytes: &[u8]) {
        if let Some(watched) = &mut self.watched {
            watched.watch(way, bytes);
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.watched {
            Some(watched) if watched.cut => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }
}

/// Fails if the first bytes belong to another protocol.
fn recognise(first: &[u8]) -> io::Result<()> {
    let hint = match detect(first) {
        Some(Protocol::Tls) => "the server speaks TLS here: give --cafile or mqtts://",
        Some(Protocol::Http) => "the server speaks HTTP here: give --ws or ws://",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, hint))
}

/// Prints the packets for `-d`.
pub(crate) fn to_stderr(way: Way, _: &Packet<'_>, summary: &str) -> Pass {
    let verb = match way {
        Way::In => "receiving",
        Way::Out => "sending",
    };
    print_error(&format!("{verb} {summary}"));
    Pass::On
}

impl<T: Transport> Transport for Tap<T> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let before = buffer.len();
        let poll = self.transport.poll_fill(cx, buffer);
        if !self.has_heard && buffer.len() > before {
            self.has_heard = true;
            recognise(buffer.get(before..).unwrap_or_default())?;
        }
        self.watch(Way::In, buffer.get(before..).unwrap_or_default());
        poll
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let poll = self.transport.poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = &poll {
            self.watch(Way::Out, bytes.get(..*n).unwrap_or_default());
        }
        poll
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_close(cx)
    }
}
