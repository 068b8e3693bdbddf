//! The header of the PROXY protocol, versions 1 and 2, which a proxy in front of a server writes before all other bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::refused;
use crate::detect::PROXY_V2;
use crate::error::{Error, ErrorKind};

/// The part of the header that has arrived.
#[derive(Debug, Default)]
pub(super) struct ProxyHeader {
    header: Vec<u8>,
    pub(super) address: Option<SocketAddr>,
}

/// The longest header of version 1.
const LONGEST_V1: usize = 107;
/// The longest accepted header of version 2. The fields after the addresses (TLS, names) are skipped.
const LONGEST_V2: usize = 4 << 10;
/// The length of signature, version and command, family, and length.
const FIXED_V2: usize = 16;

/// The content of a whole header.
struct Header {
    address: Option<SocketAddr>,
}

impl ProxyHeader {
    /// Takes bytes of the header. Returns whether it is whole.
    pub(super) fn take(&mut self, wire: &mut &[u8]) -> Result<bool, Error> {
        // Byte by byte, since bytes after the header must stay; the header is short.
        while let Some((byte, rest)) = wire.split_first() {
            self.header.push(*byte);
            *wire = rest;
            if let Some(header) = read(&self.header)? {
                self.address = header.address;
                self.header = Vec::new();
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads a header at the front of these bytes; `None` if it is not whole.
fn read(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let common = |beginning: &[u8]| {
        let n = bytes.len().min(beginning.len());
        bytes.get(..n) == beginning.get(..n)
    };
    if common(V1) {
        read_v1(bytes)
    } else if common(PROXY_V2) {
        read_v2(bytes)
    } else {
        Err(Error::new(
            ErrorKind::WrongProtocol,
            "the connection does not begin with a header of the PROXY protocol",
        ))
    }
}

const V1: &[u8] = b"PROXY ";

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let wrong = || refused("the header of the PROXY protocol, version 1, is malformed");
    if !bytes.ends_with(b"\r\n") {
        return if bytes.len() < LONGEST_V1 {
            Ok(None)
        } else {
            Err(wrong())
        };
    }
    let line = std::str::from_utf8(bytes).map_err(|_| wrong())?;
    let words: Vec<_> = line.trim_end().split(' ').collect();
    let address = match *words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, from, to, from_port, to_port] => {
            let from: IpAddr = from.parse().map_err(|_| wrong())?;
            let to: IpAddr = to.parse().map_err(|_| wrong())?;
            let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
            port(to_port)?;
            if from.is_ipv4() != (family == "TCP4") || to.is_ipv6() != (family == "TCP6") {
                return Err(wrong());
            }
            Some(SocketAddr::new(from, port(from_port)?))
        }
        _ => return Err(wrong()),
    };
    Ok(Some(Header { address }))
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let wrong = |what| {
        refused(format!(
            "the header of the PROXY protocol, version 2: {what}"
        ))
    };
    let Some(fixed) = bytes.get(..FIXED_V2) else {
        return Ok(None);
    };
    let &[.., command, family, high, low] = fixed else {
        return Ok(None);
    };
    let len = FIXED_V2 + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST_V2 {
        return Err(wrong("it is too long"));
    }
    if command >> 4 != 2 {
        return Err(wrong("it is of another version"));
    }
    let Some(body) = bytes.get(FIXED_V2..len) else {
        return Ok(None);
    };
    let address = match (command & 0xf, family) {
        // LOCAL: the connection is that of the proxy itself.
        (0, _) => None,
        (1, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body else {
                return Err(wrong("it is too short for its addresses"));
            };
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (1, 0x21) => {
            let (Some(from), Some([high, low])) = (body.first_chunk::<16>(), body.get(32..34))
            else {
                return Err(wrong("it is too short for its addresses"));
            };
            let port = u16::from_be_bytes([*high, *low]);
            Some(SocketAddr::new(Ipv6Addr::from(*from).into(), port))
        }
        // Unix sockets and unknown families have no address.
        (1, _) => None,
        _ => return Err(wrong("its command is unknown")),
    };
    Ok(Some(Header { address }))
}
