//! What a process tells another one about a pipe that it opens.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | the link to the shard of the process that opens the pipe |
//! | 2, logins (8), number of the listener (4), address, user | a client of this shard, whose bytes follow, from CONNECT on |
//!
//! The logins are a hash of who may connect at which listener, since the number of a listener means the same in processes with the same
//! settings only. The address and the user that a certificate names are texts: the length (2) and UTF-8 bytes; without an address or user the length is 0.

use std::sync::Arc;

use crate::peer::{Peer, source};

const LINK: u8 = 1;
const CLIENT: u8 = 2;

/// What a pipe is for.
#[derive(Clone, Debug)]
pub(crate) enum About {
    Link,
    Client { peer: Peer, logins: u64 },
}

impl About {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Link => vec![LINK],
            Self::Client { peer, logins } => {
                let mut bytes = vec![CLIENT];
                bytes.extend_from_slice(&logins.to_be_bytes());
                let listener = u32::try_from(peer.listener).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&listener.to_be_bytes());
                let address = peer.address.map(|address| address.to_string());
                for text in [address.as_deref(), peer.user.as_deref()] {
                    write_text(&mut bytes, text.unwrap_or_default());
                }
                bytes
            }
        }
    }

    /// Reads what another process has written; `None` for anything else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let about = match *kind {
            LINK => Self::Link,
            CLIENT => {
                let logins = u64::from_be_bytes(take(&mut rest)?);
                let listener = u32::from_be_bytes(take(&mut rest)?);
                let (address, user) = (read_text(&mut rest)?, read_text(&mut rest)?);
                let mut peer = Peer {
                    listener: usize::try_from(listener).ok()?,
                    user: (!user.is_empty()).then(|| Arc::from(user)),
                    ..Peer::default()
                };
                if !address.is_empty() {
                    let address: std::net::SocketAddr = address.parse().ok()?;
                    peer.address = Some(address);
                    peer.source = source(address.ip());
                }
                Self::Client { peer, logins }
            }
            _ => return None,
        };
        rest.is_empty().then_some(about)
    }
}

/// A certificate has a name of less than 64 KiB; a longer one would not be the user of the certificate.
fn write_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(0);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = u16::from_be_bytes(take(bytes)?);
    let (text, rest) = bytes.split_at_checked(usize::from(len))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_about_a_pipe_is_read_as_it_was_written() {
        let bytes = About::Link.bytes();
        let read = About::read(&bytes);
        assert!(matches!(read, Some(About::Link)), "{read:?}");
        assert!(About::read(&[&bytes[..], b"x"].concat()).is_none());
        for (address, user) in [
            (None, None),
            (Some("192.0.2.7:99"), Some("Émile")),
            (Some("[2001:db8::1]:1"), None),
        ] {
            let mut peer = Peer {
                listener: 70_000,
                user: user.map(Arc::from),
                ..Peer::default()
            };
            peer.address = address.map(|address| address.parse().unwrap());
            let client = About::Client {
                peer: peer.clone(),
                logins: 9,
            };
            let bytes = client.bytes();
            let Some(About::Client {
                peer: read,
                logins: 9,
            }) = About::read(&bytes)
            else {
                panic!("{bytes:?}");
            };
            assert_eq!((read.address, read.user), (peer.address, peer.user));
            let expected = read.address.map_or(0, |address| source(address.ip()));
            assert_eq!((read.listener, read.source), (70_000, expected));
            // No other bytes are read.
            for len in 0..bytes.len() {
                assert!(About::read(&bytes[..len]).is_none(), "{len}");
            }
            assert!(About::read(&[&bytes[..], b"x"].concat()).is_none());
        }
        assert!(About::read(&[]).is_none());
        assert!(About::read(&[3]).is_none());
        assert!(
            About::read(b"\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01x\0\0").is_none(),
            "no address"
        );
    }
}
