//! A SUBSCRIBE or UNSUBSCRIBE as it was sent, read again for its answer. It was written here, so nothing of it is checked: the
//! whole decoder would cost a device more than all that is needed of it.

use mqtt_proto::{VarInt, Version};

use crate::outbox::to_usize;

/// The subscription options of each filter of a SUBSCRIBE.
pub(crate) fn options(packet: &[u8], version: Version) -> impl Iterator<Item = u8> + Clone {
    let mut rest = filters(packet, version).unwrap_or_default();
    core::iter::from_fn(move || {
        let (options, after) = skip_filter(rest)?.split_first()?;
        rest = after;
        Some(*options)
    })
}

/// How many filters an UNSUBSCRIBE has.
pub(crate) fn count(packet: &[u8], version: Version) -> usize {
    let mut rest = filters(packet, version).unwrap_or_default();
    core::iter::from_fn(|| {
        rest = skip_filter(rest)?;
        Some(())
    })
    .count()
}

/// What stands behind fixed header, packet identifier and properties.
fn filters(packet: &[u8], version: Version) -> Option<&[u8]> {
    let (_, rest) = varint(packet.get(1..)?)?;
    let rest = rest.get(2..)?;
    if !version.is_v5() {
        return Some(rest);
    }
    let (len, rest) = varint(rest)?;
    rest.get(to_usize(len)..)
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, len) = VarInt::decode(bytes).ok()??;
    Some((value.get(), bytes.get(len..)?))
}

fn skip_filter(rest: &[u8]) -> Option<&[u8]> {
    let (len, rest) = rest.split_first_chunk()?;
    rest.get(usize::from(u16::from_be_bytes(*len))..)
}
