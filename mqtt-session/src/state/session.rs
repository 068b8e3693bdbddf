//! The state that belongs to a client identifier, not to a connection.

use mqtt_proto::Version;

use crate::event::Nth;

/// The state of a session (section 4.1).
#[derive(Debug)]
pub(crate) struct Session {
    /// The fingerprint of the client identifier that this session belongs to; 0 while there is none.
    pub(crate) owner: u32,
    /// The number of the last message or request that got a packet identifier.
    pub(crate) last: u32,
    /// The end of the last packet in `kept`.
    pub(crate) kept_end: u32,
    /// How many QoS 0 messages were kept so far.
    pub(crate) unnumbered: Nth,
    /// The slots in use: the index of the first, how many there are, how many of them are free again, and how many have ended.
    pub(crate) start: u16,
    pub(crate) len: u16,
    pub(crate) free: u16,
    pub(crate) ended: u16,
    /// The received messages that have not ended: the index of the first, and how many there are.
    pub(crate) received_start: u16,
    pub(crate) received: u16,
    /// How many of them are acknowledged by hand and wait for their turn, at QoS 1 and at QoS 2.
    pub(crate) acknowledged: [u16; 2],
    /// The serial number of the last received message.
    pub(crate) serial: u16,
    /// Whether the packet identifiers of the received messages are out of order.
    pub(crate) unordered: bool,
    /// The version in which the packets in `kept` are encoded.
    pub(crate) version: Version,
}

impl Session {
    pub(crate) const fn new(version: Version) -> Self {
        Self {
            owner: 0,
            last: 0,
            kept_end: 0,
            unnumbered: Nth::NONE,
            start: 0,
            len: 0,
            free: 0,
            ended: 0,
            received_start: 0,
            received: 0,
            acknowledged: [0, 0],
            serial: 0,
            unordered: false,
            version,
        }
    }
}

/// Returns a hash of a client identifier (FNV-1a). Its four bytes are enough to distinguish the few identifiers that one
/// application uses. It is never 0, which stands for no client.
pub(crate) fn fingerprint(client_id: &[u8]) -> u32 {
    let hash = client_id.iter().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    if hash == 0 { u32::MAX } else { hash }
}
