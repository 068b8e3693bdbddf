//! A SUBSCRIBE or UNSUBSCRIBE as it was sent, read again for its answer. It was written here, so nothing of it is checked: the
//! whole decoder would cost a device more than all that is needed of it.

use mqtt_proto::{List, ReasonCode, VarInt, Version};

use crate::error::Violation;
use crate::outbox::to_usize;

/// The bits of the subscription options that say which QoS is asked for.
const MAXIMUM_QOS: u8 = 0b11;

/// Compares the codes of an answer with the filters of its request: whether one grants more than it asked for.
pub(crate) fn compare(
    subscribes: bool,
    request: &[u8],
    version: Version,
    codes: List<'_, ReasonCode>,
) -> Result<bool, Violation> {
    let mut rest = filters(request, version).unwrap_or_default();
    let (mut filters, mut answered, mut granted_more) = (0_usize, 0_usize, false);
    let mut codes = codes.iter();
    while let Some((_, behind)) = split_filter(rest) {
        rest = behind;
        filters = filters.wrapping_add(1);
        let asked = match rest.split_first() {
            Some((options, behind)) if subscribes => {
                rest = behind;
                options & MAXIMUM_QOS
            }
            _ => MAXIMUM_QOS,
        };
        if let Some(code) = codes.next() {
            answered = answered.wrapping_add(1);
            granted_more |= !code.is_error() && code.get() > asked;
        }
    }
    // 3.1.1 [MQTT-3.8.4-5], 5 [MQTT-3.8.4-6]
    let codes = answered.wrapping_add(codes.count());
    if codes == filters {
        Ok(granted_more)
    } else {
        Err(Violation::CodeCount { codes, filters })
    }
}

/// What stands behind fixed header, packet identifier and properties.
fn filters(request: &[u8], version: Version) -> Option<&[u8]> {
    let length_ends = request.iter().skip(1).position(|byte| *byte < 0x80)?;
    let rest = request.get(length_ends.wrapping_add(4)..)?;
    if !version.is_v5() {
        return Some(rest);
    }
    let (properties, len) = VarInt::decode(rest).ok()??;
    rest.get(to_usize(properties.get()).wrapping_add(len)..)
}

fn split_filter(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = rest.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
