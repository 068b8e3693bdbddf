//! A received packet of any type, as one struct.

use core::fmt;

use super::fault::Fault;
use super::frame::{publish_fault, varint};
use super::layout::{Layout, layout};
use super::packet_type::kind;
use super::property::PropertyId;
use super::reader::{Block, Reader};
use super::reason::reason_fits;
use super::text::SHARE;
use crate::num::to_usize;

/// A received packet of any type. Fields that its type does not have are zero or empty.
#[derive(Clone, Copy, Default)]
pub struct View<'a> {
    /// The packet type, 1 to 15.
    pub kind: u8,
    /// The flags of the fixed header; for CONNECT and CONNACK those of the variable header.
    pub flags: u8,
    /// The reason code; for CONNACK before MQTT 5 the return code.
    pub reason: u8,
    /// The protocol level; only for CONNECT.
    pub level: u8,
    /// The packet identifier; for CONNECT the keep-alive in seconds.
    pub id: u16,
    /// The topic alias of PUBLISH; 0 if it has none.
    pub alias: u16,
    /// The topic; for CONNECT the client identifier.
    pub topic: &'a [u8],
    /// The payload, the filters or the codes; for CONNECT the fields after the client identifier.
    pub body: &'a [u8],
    /// The properties without their length. The properties of a will are in `body`.
    pub properties: &'a [u8],
}

/// Shows only the lengths of the fields that may have a password, a token or a payload.
impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("kind", &self.kind)
            .field("flags", &self.flags)
            .field("reason", &self.reason)
            .field("level", &self.level)
            .field("id", &self.id)
            .field("alias", &self.alias)
            .field("topic", &self.topic)
            .field("body", &self.body.len())
            .field("properties", &self.properties.len())
            .finish()
    }
}

/// The number for the properties of a will, where other properties have the number of their packet type.
pub(crate) const WILL_PROPERTIES: u8 = 0;

/// The flags of CONNECT.
pub(crate) mod connect {
    pub(crate) const USER_NAME: u8 = 0x80;
    pub(crate) const PASSWORD: u8 = 0x40;
    pub(crate) const WILL_RETAIN: u8 = 0x20;
    pub(crate) const WILL_QOS: u8 = 0x18;
    pub(crate) const WILL: u8 = 0x04;
    pub(crate) const CLEAN_START: u8 = 0x02;
    pub(crate) const RESERVED: u8 = 0x01;
    /// The bit of the protocol level with which a bridge of Mosquitto tells that it is one, in 3.1 and 3.1.1.
    pub(crate) const BRIDGE: u8 = 0x80;
}

/// The options of a subscription.
pub(crate) mod options {
    pub(crate) const QOS: u8 = 0x03;
    pub(crate) const NO_LOCAL: u8 = 0x04;
    pub(crate) const RETAIN_AS_PUBLISHED: u8 = 0x08;
    pub(crate) const RETAIN_HANDLING: u8 = 0x30;
    pub(crate) const RESERVED: u8 = 0xC0;
    pub(crate) const RESERVED_311: u8 = 0xFC;
}

impl<'a> View<'a> {
    /// Reads a packet whose fixed header was checked, by its layout. If the packet breaks a rule, `body` keeps the fault, and
    /// the fields of the view are not meaningful.
    pub fn read(&mut self, first: u8, body: &mut Reader<'a>, v5: bool) {
        let mut reader = *body;
        self.read_as::<true>(first, &mut reader, v5);
        *body = reader;
    }

    /// Reads a packet as [`Self::read`] does, if a client may receive it. Any other packet is [`Fault::UNEXPECTED`], and the code
    /// that reads it is not linked.
    pub fn read_by_client(&mut self, first: u8, body: &mut Reader<'a>, v5: bool) {
        self.read_as::<false>(first, body, v5);
    }

    /// The fast path: reads a whole PUBLISH at the front of `input`, as [`frame()`](super::frame()) and [`Self::read`] do. The
    /// caller has checked the packet type. Returns its properties and its length in bytes, or `None` if it is not whole or breaks a
    /// rule; the view has no meaning then. Here the compiler knows the layout, and no walk through it is left.
    #[inline(always)]
    pub fn read_publish(
        &mut self,
        input: &'a [u8],
        v5: bool,
        limit: u32,
    ) -> Option<(Block<'a>, usize)> {
        let (first, rest) = input.split_first()?;
        let flags = first & 15;
        let (value, len) = varint(rest);
        let head = len.wrapping_add(1);
        let total = to_usize(value).wrapping_add(head);
        if len == 0 || publish_fault(flags).is_some() || total > to_usize(limit) {
            return None;
        }
        let mut body = Reader::new(input.get(head..total)?);
        let block = self.read_as::<false>(kind::PUBLISH << 4 | flags, &mut body, v5);
        body.fault.is_none().then_some((block, total))
    }

    #[inline(always)]
    fn read_as<const SERVER: bool>(
        &mut self,
        first: u8,
        body: &mut Reader<'a>,
        v5: bool,
    ) -> Block<'a> {
        let mut block = Block::default();
        let v5 = cfg!(feature = "v5") && v5;
        let start = body.rest.len();
        (self.kind, self.flags) = (first >> 4, first & 15);
        let layout = layout(self.kind, v5);
        if !SERVER && !layout.has(Layout::TO_CLIENT) {
            body.fail(Fault::UNEXPECTED);
            return block;
        }
        if SERVER && layout.has(Layout::HELLO) {
            self.read_hello(body);
        }
        if layout.has(Layout::TOPIC) {
            // 3.1.1 [MQTT-3.3.2-1] and [MQTT-3.3.2-2], 5 [MQTT-3.3.2-1] and [MQTT-3.3.2-2]
            self.topic = body.name_or_none();
        }
        // 3.1.1 [MQTT-2.3.1-5], 5 [MQTT-2.2.1-2]: a PUBLISH of QoS 0 has no identifier.
        if layout.has(Layout::ID) && (self.flags & 6 != 0 || !layout.has(Layout::TOPIC)) {
            self.id = body.id();
        }
        let layout = shortened(layout, body);
        if layout.has(Layout::SESSION) {
            self.flags = body.u8();
            // 5 [MQTT-3.2.2-1]
            if self.flags > 1 {
                body.fail_back(1, Fault::RESERVED_BITS);
            }
        }
        if layout.has(Layout::REASON) {
            self.read_reason(body, v5);
        }
        let layout = shortened(layout, body);
        if v5 && layout.has(Layout::PROPERTIES) {
            block = body.properties(self.kind);
            (self.properties, self.alias) = (block.bytes, block.alias);
        }
        // 3.1.1 [MQTT-4.7.3-1], 5 [MQTT-4.7.3-1]: in 5 a topic alias may stand for the name.
        if layout.has(Layout::TOPIC) && self.topic.is_empty() && self.alias == 0 {
            body.fail_at(start, Fault::TOPIC_EMPTY);
        }
        self.read_rest::<SERVER>(layout, body, v5);
        body.finish();
        block
    }

    #[inline]
    fn read_reason(&mut self, body: &mut Reader<'a>, v5: bool) {
        self.reason = body.u8();
        let fits = if v5 {
            reason_fits(self.kind, v5, self.reason)
        } else {
            // Before MQTT 5, only CONNACK has a code.
            self.reason <= 5
        };
        if !fits {
            body.fail_back(1, Fault::REASON);
        }
        // 3.1.1 [MQTT-3.2.2-4], 5 [MQTT-3.2.2-6]
        if self.kind == kind::CONNACK && self.flags != 0 && self.reason != 0 {
            body.fail_back(2, Fault::SESSION_PRESENT);
        }
    }

    /// Reads the field that reaches to the end of the packet.
    #[inline]
    fn read_rest<const SERVER: bool>(&mut self, layout: Layout, body: &mut Reader<'a>, v5: bool) {
        if !layout.has(Layout::HELLO) {
            self.body = body.rest;
        }
        if layout.has(Layout::PAYLOAD) {
            body.take_rest();
        }
        // 3.1.1 [MQTT-3.8.3-3] and [MQTT-3.10.3-2], 5 [MQTT-3.8.3-2] and [MQTT-3.10.3-2]
        if layout.has(Layout::CODES.and(Layout::FILTERS)) && body.rest.is_empty() {
            body.fail(Fault::EMPTY_LIST);
        }
        while layout.has(Layout::CODES) && !body.rest.is_empty() {
            // 3.1.1 [MQTT-3.9.3-2], 5 [MQTT-3.9.3-2] and [MQTT-3.11.3-2]
            if !reason_fits(self.kind, v5, body.u8()) {
                body.fail_back(1, Fault::REASON);
            }
        }
        while SERVER && layout.has(Layout::FILTERS) && !body.rest.is_empty() {
            // 3.1.1 [MQTT-3.8.3-1], [MQTT-3.8.3-2] and [MQTT-3.10.3-1], 5 [MQTT-3.8.3-1] and [MQTT-3.10.3-1]: filters
            // are text and may have wildcards.
            let filter = body.filter(v5);
            if layout.has(Layout::OPTIONS) {
                let fault = options_fault(body.u8(), filter, v5);
                if fault.is_some() {
                    body.fail_back(1, fault);
                }
            }
        }
    }

    /// Reads the fields that only CONNECT has.
    fn read_hello(&mut self, body: &mut Reader<'a>) {
        let start = body.rest.len();
        let name = body.binary();
        self.level = body.u8();
        let known = match self.level {
            3 | 0x83 => name == b"MQIsdp",
            4 | 0x84 => name == b"MQTT",
            5 => cfg!(feature = "v5") && name == b"MQTT",
            _ => false,
        };
        if !known {
            // 3.1.1 [MQTT-3.1.2-1] and [MQTT-3.1.2-2], 5 [MQTT-3.1.2-1] and [MQTT-3.1.2-2]
            match name {
                b"MQTT" | b"MQIsdp" => body.fail_back(1, Fault::PROTOCOL_LEVEL),
                _ => body.fail_at(start, Fault::PROTOCOL_NAME),
            }
        }
        let v5 = cfg!(feature = "v5") && self.level == 5;
        self.flags = body.u8();
        let fault = connect_fault(self.flags, v5);
        if fault.is_some() {
            body.fail_back(1, fault);
        }
        self.id = body.u16();
        if v5 {
            self.properties = body.properties(kind::CONNECT).bytes;
        }
        // 3.1.1 [MQTT-3.1.3-1], [MQTT-3.1.3-3] and [MQTT-3.1.3-4], 5 [MQTT-3.1.3-1], [MQTT-3.1.3-3]
        // 5 [MQTT-3.1.3-4]: the client identifier first, then the others in this order.
        self.topic = body.text();
        self.body = body.rest;
        // 3.1.1 [MQTT-3.1.2-11] and [MQTT-3.1.3-10], 5 [MQTT-3.1.3-11]
        if self.flags & connect::WILL != 0 {
            if v5 {
                body.properties(WILL_PROPERTIES);
            }
            body.name();
            body.binary();
        }
        // 3.1.1 [MQTT-3.1.2-18], [MQTT-3.1.2-19] and [MQTT-3.1.3-11], 5 [MQTT-3.1.2-16], [MQTT-3.1.2-17]
        // 5 [MQTT-3.1.3-12]
        if self.flags & connect::USER_NAME != 0 {
            body.text();
        }
        // 3.1.1 [MQTT-3.1.2-20] and [MQTT-3.1.2-21], 5 [MQTT-3.1.2-18] and [MQTT-3.1.2-19]
        if self.flags & connect::PASSWORD != 0 {
            body.binary();
        }
    }

    /// Returns the value of a property that is a number.
    #[must_use]
    pub fn number(&self, id: PropertyId) -> Option<u32> {
        Reader::new(self.properties)
            .property(id)
            .map(|entry| entry.number)
    }

    /// Returns the value of a property that is text or bytes.
    #[must_use]
    pub fn bytes(&self, id: PropertyId) -> Option<&'a [u8]> {
        Reader::new(self.properties)
            .property(id)
            .map(|entry| entry.bytes)
    }
}

/// Removes the reason code and the properties from the layout if the packet ends before them.
#[inline]
fn shortened(layout: Layout, body: &Reader<'_>) -> Layout {
    if cfg!(feature = "v5") && layout.has(Layout::SHORT) && body.rest.is_empty() {
        layout.without(Layout::REASON.and(Layout::PROPERTIES))
    } else {
        layout
    }
}

/// Returns the error of the flags of CONNECT.
pub(crate) const fn connect_fault(flags: u8, v5: bool) -> Fault {
    use connect::{PASSWORD, RESERVED, USER_NAME, WILL, WILL_QOS, WILL_RETAIN};
    if flags & RESERVED != 0 {
        // 3.1.1 [MQTT-3.1.2-3], 5 [MQTT-3.1.2-3]
        Fault::RESERVED_BITS
    } else if flags & WILL_QOS == WILL_QOS {
        // 3.1.1 [MQTT-3.1.2-14], 5 [MQTT-3.1.2-12]
        Fault::QOS_3
    } else if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        // 3.1.1 [MQTT-3.1.2-13] and [MQTT-3.1.2-15], 5 [MQTT-3.1.2-11] and [MQTT-3.1.2-13]
        Fault::WILL_FLAGS
    } else if !v5 && flags & (USER_NAME | PASSWORD) == PASSWORD {
        // 3.1.1 [MQTT-3.1.2-22]
        Fault::PASSWORD
    } else {
        Fault::NONE
    }
}

/// Returns the error of the options of a subscription.
#[inline]
pub(crate) fn options_fault(found: u8, filter: &[u8], v5: bool) -> Fault {
    let reserved = if v5 {
        options::RESERVED
    } else {
        options::RESERVED_311
    };
    if found & reserved != 0 {
        // 5 [MQTT-3.8.3-5]; 3.1.1 says so without a number (section 3.8.3).
        Fault::RESERVED_BITS
    } else if found & options::QOS == options::QOS {
        Fault::QOS_3
    } else if found & options::RETAIN_HANDLING == options::RETAIN_HANDLING {
        Fault::RETAIN_HANDLING
    } else if found & options::NO_LOCAL != 0 && filter.starts_with(SHARE) {
        // 5 [MQTT-3.8.3-4]
        Fault::NO_LOCAL_SHARED
    } else {
        Fault::NONE
    }
}
