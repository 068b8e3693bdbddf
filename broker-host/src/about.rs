//! The description of a pipe, with which a process tells another process what it opens the pipe for.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | the link to the shard of the process that opens the pipe |
//! | 2, logins (8), number of the listener (4), source (8), address, user | a client of this shard, whose bytes follow, from CONNECT on |
//! | 3 | that process stops: this one says goodbye to the clients whose bytes come from there. The pipe carries nothing |
//!
//! The logins are a hash of who may connect at which listener, since the number of a listener means the same in processes with the same
//! settings only. The source is the number of the address in the limits for one address. The address and the user that a certificate
//! names are texts: the length (2) and UTF-8 bytes; without an address or user the length is 0. Numbers are big-endian.

use std::sync::Arc;

use mqtt_proto::num::to_u32;
use mqtt_transport::bytes::{Buf, BufMut};

use crate::peer::Peer;

const LINK: u8 = 1;
const CLIENT: u8 = 2;
const STOPS: u8 = 3;

/// The use of a pipe.
#[derive(Clone, Debug)]
pub(crate) enum About {
    Link,
    Client { peer: Peer, logins: u64 },
    Stops,
}

impl About {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Link => vec![LINK],
            Self::Client { peer, logins } => {
                let mut bytes = vec![CLIENT];
                bytes.put_u64(*logins);
                bytes.put_u32(to_u32(peer.listener));
                bytes.put_u64(peer.source);
                let address = peer.address.map(|address| address.to_string());
                for text in [address.as_deref(), peer.user.as_deref()] {
                    write_text(&mut bytes, text.unwrap_or_default());
                }
                bytes
            }
            Self::Stops => vec![STOPS],
        }
    }

    /// Reads what another process has written; `None` for anything else.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let about = match bytes.try_get_u8().ok()? {
            LINK => Self::Link,
            CLIENT => {
                let logins = bytes.try_get_u64().ok()?;
                let listener = bytes.try_get_u32().ok()?;
                let source = bytes.try_get_u64().ok()?;
                let (address, user) = (read_text(&mut bytes)?, read_text(&mut bytes)?);
                let address = match address {
                    "" => None,
                    address => Some(address.parse().ok()?),
                };
                let peer = Peer {
                    address,
                    listener: usize::try_from(listener).ok()?,
                    user: (!user.is_empty()).then(|| Arc::from(user)),
                    source,
                    ..Peer::default()
                };
                Self::Client { peer, logins }
            }
            STOPS => Self::Stops,
            _ => return None,
        };
        bytes.is_empty().then_some(about)
    }
}

/// A certificate has a name of less than 64 KiB; a longer one would not be the user of the certificate.
fn write_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(0);
    bytes.put_u16(len);
    bytes.put_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = bytes.try_get_u16().ok()?;
    let (text, rest) = bytes.split_at_checked(usize::from(len))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_about_a_pipe_is_read_as_it_was_written() {
        let (link, stops) = (About::read(&[1]), About::read(&[3]));
        assert_eq!(
            (About::Link.bytes(), About::Stops.bytes()),
            (vec![1], vec![3])
        );
        assert!(matches!(link, Some(About::Link)), "{link:?}");
        assert!(matches!(stops, Some(About::Stops)), "{stops:?}");
        assert!(About::read(b"\x01x").is_none() && About::read(b"\x03x").is_none());
        for (address, user) in [
            (None, None),
            (Some("192.0.2.7:99"), Some("Émile")),
            (Some("[2001:db8::1]:1"), None),
        ] {
            let peer = Peer {
                listener: 70_000,
                user: user.map(Arc::from),
                address: address.map(|address| address.parse().unwrap()),
                source: u64::MAX - 7,
                ..Peer::default()
            };
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
            assert_eq!((read.listener, read.source), (70_000, u64::MAX - 7));
            // No other bytes are read.
            for len in 0..bytes.len() {
                assert!(About::read(&bytes[..len]).is_none(), "{len}");
            }
            assert!(About::read(&[&bytes[..], b"x"].concat()).is_none());
        }
        assert!(About::read(&[]).is_none());
        assert!(About::read(&[4]).is_none());
        let no_address = [&[2][..], &[0; 20], b"\0\x01x\0\0"].concat();
        assert!(About::read(&no_address).is_none());
    }
}
