//! The layout of each packet, as data. The fields of all packets are in the same order, so a layout is a set of fields:
//!
//! ```text
//! HELLO  TOPIC  ID  SESSION  REASON  PROPERTIES  and then one of FILTERS (with OPTIONS), CODES, PAYLOAD or nothing
//! ```

/// The fields of a packet, its flags, and which side may receive it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout(u16);

impl Layout {
    /// The fields that only CONNECT has.
    pub const HELLO: Self = Self(1);
    /// A topic name.
    pub const TOPIC: Self = Self(1 << 1);
    /// A packet identifier.
    pub const ID: Self = Self(1 << 2);
    /// The byte of CONNACK that says whether the session is present.
    pub const SESSION: Self = Self(1 << 3);
    /// A reason code.
    pub const REASON: Self = Self(1 << 4);
    /// Properties.
    pub const PROPERTIES: Self = Self(1 << 5);
    /// Topic filters up to the end.
    pub const FILTERS: Self = Self(1 << 6);
    /// A byte of options after each filter.
    pub const OPTIONS: Self = Self(1 << 7);
    /// Reason codes up to the end.
    pub const CODES: Self = Self(1 << 8);
    /// A payload up to the end.
    pub const PAYLOAD: Self = Self(1 << 9);
    /// The packet may end after the packet identifier, and also after the reason code.
    pub const SHORT: Self = Self(1 << 10);
    /// The flags of the fixed header are 0b0010.
    pub const FLAG_2: Self = Self(1 << 11);
    /// The version has this packet type.
    pub const EXISTS: Self = Self(1 << 12);
    /// A client may receive this packet.
    pub const TO_CLIENT: Self = Self(1 << 13);
    /// A server may receive this packet.
    pub const TO_SERVER: Self = Self(1 << 14);

    const BOTH: Self = Self::TO_CLIENT.and(Self::TO_SERVER);
    const VARIABLE: Self = Self::HELLO
        .and(Self::TOPIC)
        .and(Self::PROPERTIES)
        .and(Self::FILTERS)
        .and(Self::CODES)
        .and(Self::PAYLOAD);

    /// Returns the fields of both sets.
    #[must_use]
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the fields of this set that are not in `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set has at least one of the fields.
    #[must_use]
    #[inline]
    pub const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }

    /// Returns the flags of the fixed header. They do not apply to PUBLISH.
    #[must_use]
    #[inline]
    pub const fn flags(self) -> u8 {
        if self.has(Self::FLAG_2) { 2 } else { 0 }
    }

    /// Returns the length of the body in bytes if no field has a variable length.
    #[must_use]
    #[inline]
    pub(crate) const fn fixed_length(self) -> Option<u32> {
        if self.has(Self::VARIABLE) {
            None
        } else if self.has(Self::ID.and(Self::SESSION)) {
            // A packet identifier takes two bytes, as do the two fields of CONNACK.
            Some(2)
        } else {
            Some(0)
        }
    }
}

const fn set(fields: &[Layout]) -> u16 {
    let (mut all, mut rest) = (0, fields);
    while let Some((first, tail)) = rest.split_first() {
        all |= first.0;
        rest = tail;
    }
    all
}

use Layout as L;

/// The fields in 3.1.1, by packet type.
const LAYOUT_311: [u16; 16] = [
    0,
    set(&[L::EXISTS, L::TO_SERVER, L::HELLO]),
    set(&[L::EXISTS, L::TO_CLIENT, L::SESSION, L::REASON]),
    set(&[L::EXISTS, L::BOTH, L::TOPIC, L::ID, L::PAYLOAD]),
    set(&[L::EXISTS, L::BOTH, L::ID]),
    set(&[L::EXISTS, L::BOTH, L::ID]),
    set(&[L::EXISTS, L::BOTH, L::ID, L::FLAG_2]),
    set(&[L::EXISTS, L::BOTH, L::ID]),
    set(&[
        L::EXISTS,
        L::TO_SERVER,
        L::ID,
        L::FILTERS,
        L::OPTIONS,
        L::FLAG_2,
    ]),
    set(&[L::EXISTS, L::TO_CLIENT, L::ID, L::CODES]),
    set(&[L::EXISTS, L::TO_SERVER, L::ID, L::FILTERS, L::FLAG_2]),
    set(&[L::EXISTS, L::TO_CLIENT, L::ID]),
    set(&[L::EXISTS, L::TO_SERVER]),
    set(&[L::EXISTS, L::TO_CLIENT]),
    set(&[L::EXISTS, L::TO_SERVER]),
    0,
];

/// The fields that 5 adds, by packet type.
const LAYOUT_5: [u16; 16] = [
    0,
    0,
    set(&[L::PROPERTIES]),
    set(&[L::PROPERTIES]),
    set(&[L::SHORT, L::REASON, L::PROPERTIES]),
    set(&[L::SHORT, L::REASON, L::PROPERTIES]),
    set(&[L::SHORT, L::REASON, L::PROPERTIES]),
    set(&[L::SHORT, L::REASON, L::PROPERTIES]),
    set(&[L::PROPERTIES]),
    set(&[L::PROPERTIES]),
    set(&[L::PROPERTIES]),
    set(&[L::PROPERTIES, L::CODES]),
    0,
    0,
    set(&[L::BOTH, L::SHORT, L::REASON, L::PROPERTIES]),
    set(&[L::EXISTS, L::BOTH, L::SHORT, L::REASON, L::PROPERTIES]),
];

/// Returns the layout of a packet type in a version. It is empty if the version has no such type.
#[must_use]
#[inline]
pub fn layout(kind: u8, v5: bool) -> Layout {
    let index = usize::from(kind);
    let mut fields = LAYOUT_311.get(index).copied().unwrap_or_default();
    if cfg!(feature = "v5") && v5 {
        fields |= LAYOUT_5.get(index).copied().unwrap_or_default();
    }
    Layout(fields)
}
