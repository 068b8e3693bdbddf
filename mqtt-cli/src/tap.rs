//! `-d`: a transport that prints the packets that pass.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use adapter_tokio::proto::{Decoded, MAX_PACKET, Packet, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::anatomy;

/// A transport that may be watched.
#[derive(Debug)]
pub(crate) struct Tap<T> {
    transport: T,
    watchers: Option<[Watcher; 2]>,
}

#[derive(Debug)]
struct Watcher {
    verb: &'static str,
    version: Version,
    bytes: Vec<u8>,
}

impl Watcher {
    const fn new(verb: &'static str, version: Version) -> Self {
        Self {
            verb,
            version,
            bytes: Vec::new(),
        }
    }

    fn watch(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(
            self.bytes.get(at..).unwrap_or_default(),
            self.version,
            MAX_PACKET,
        ) {
            let own = self.bytes.get(at..at + consumed).unwrap_or_default();
            eprintln!(
                "{} {}",
                self.verb,
                anatomy::summary(own, &packet, self.version)
            );
            at += consumed;
        }
        self.bytes.drain(..at);
    }
}

impl<T> Tap<T> {
    pub(crate) fn new(transport: T, watched: bool, version: Version) -> Self {
        let watchers = || {
            [
                Watcher::new("receiving", version),
                Watcher::new("sending", version),
            ]
        };
        Self {
            transport,
            watchers: watched.then(watchers),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.transport).poll_read(cx, buffer);
        if let Some([receiving, _]) = &mut self.watchers {
            receiving.watch(buffer.filled().get(before..).unwrap_or_default());
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(n)), Some([_, sending])) = (&poll, &mut self.watchers) {
            sending.watch(bytes.get(..*n).unwrap_or_default());
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
