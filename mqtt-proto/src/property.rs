//! Properties of MQTT 5 (section 2.2.2): a length, then pairs of identifier and value. The table below is the standard's
//! table 2-4 stands in [`crate::wire`].

use crate::error::{EncodeError, Field, Rule};
use crate::header::PacketType;
use crate::id::TopicAlias;
use crate::list::sealed::Take;
use crate::num::{low_byte, low_half};
use crate::reader::{Read, Reader, checked_str};
use crate::sink::Sink;
use crate::topic::{self, TopicName};
use crate::varint::VarInt;
pub use crate::wire::property::{PropertyId, PropertyKind};
use crate::wire::property::{lacks_method, once, property_table};
use crate::wire::{self, Entry};

/// The properties of a block that was checked, each with all of its bytes.
pub(crate) fn entries<'a>(block: &'a [u8]) -> impl Iterator<Item = (Entry<'a>, &'a [u8])> {
    let mut rest = wire::Reader::new(block);
    core::iter::from_fn(move || {
        let before = rest.rest;
        let entry = rest.next_property()?;
        let len = before.len().saturating_sub(rest.rest.len());
        Some((entry, before.get(..len)?))
    })
}

/// Reads a value. What is not a number is passed over and says 0.
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
fn number(kind: Kind, bytes: &mut Reader<'_, '_>) -> Read<u32> {
    match kind {
        Kind::Bool => bytes.u8().map(u32::from),
        Kind::U16 | Kind::U16NonZero => bytes.u16().map(u32::from),
        Kind::U32 | Kind::U32NonZero => bytes.u32(),
        Kind::VarInt => bytes.varint(),
        Kind::Text | Kind::Topic | Kind::Binary => bytes.binary().map(|_| 0),
        Kind::Pair => {
            bytes.binary()?;
            bytes.binary().map(|_| 0)
        }
    }
}

type Kind = PropertyKind;

/// The table by number, so that one look-up serves each property read.
static TABLE: [Option<(PropertyId, Kind)>; 0x2B] = {
    let mut table = [None; 0x2B];
    let mut rest = PropertyId::ALL;
    while let Some((id, tail)) = rest.split_first() {
        #[allow(
            clippy::as_conversions,
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; all are below 0x2B"
        )]
        {
            table[id.get() as usize] = Some((*id, id.kind()));
        }
        rest = tail;
    }
    table
};

/// Which properties can stand here: those of a packet type, or of a will.
#[derive(Clone, Copy)]
pub(crate) struct Place(u8);

impl Place {
    pub(crate) const WILL: Self = Self(0);

    pub(crate) const fn packet(packet: PacketType) -> Self {
        Self(packet.get())
    }

    fn may_repeat(self, id: PropertyId) -> bool {
        once(self.0) & id.bit() == 0
    }
}

/// The value of a property as the table lays it out: a number or bytes.
pub(crate) trait Stored<'a> {
    fn read(number: u32, bytes: &'a [u8]) -> Self;
    fn number(self) -> u32;
    fn bytes(self) -> &'a [u8];
}

macro_rules! stored {
    ($($type:ty: $read:expr, $number:expr, $bytes:expr;)*) => {
        $(impl<'a> Stored<'a> for $type {
            #[inline]
            fn read(number: u32, bytes: &'a [u8]) -> Self {
                let read: fn(u32, &'a [u8]) -> Self = $read;
                read(number, bytes)
            }

            #[inline]
            fn number(self) -> u32 {
                let number: fn(Self) -> u32 = $number;
                number(self)
            }

            #[inline]
            fn bytes(self) -> &'a [u8] {
                let bytes: fn(Self) -> &'a [u8] = $bytes;
                bytes(self)
            }
        })*
    };
}

stored! {
    bool: |number, _| number != 0, u32::from, |_| &[];
    u16: |number, _| low_half(number), u32::from, |_| &[];
    u32: |number, _| number, |number| number, |_| &[];
    &'a str: |_, bytes| checked_str(bytes), |_| 0, str::as_bytes;
    &'a [u8]: |_, bytes| bytes, |_| 0, |bytes| bytes;
    TopicName<'a>: |_, bytes| TopicName::validated(bytes), |_| 0, |topic| topic.as_bytes();
}

/// A value of a row of the table: that called `name` is the first of two.
macro_rules! part {
    (read $entry:ident name) => {
        Stored::read(0, $entry.name)
    };
    (read $entry:ident $value:ident) => {
        Stored::read($entry.number, $entry.bytes)
    };
    (write $entry:ident name $value:ident) => {
        $entry.name = Stored::bytes($value)
    };
    (write $entry:ident $name:ident $value:ident) => {
        ($entry.number, $entry.bytes) = (Stored::number($value), Stored::bytes($value))
    };
}

macro_rules! enumeration {
    ($($(#[$doc:meta])* $id:literal $name:ident($($value:ident: $type:ty),+) $getter:ident $text:literal $kind:ident [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        /// One property with its value.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Property<'a> {
            $($(#[$doc])* $name($($type),+),)*
        }

        impl<'a> Property<'a> {
            /// Its identifier.
            #[must_use]
            pub const fn id(&self) -> PropertyId {
                match self { $(Self::$name(..) => PropertyId::$name,)* }
            }

            pub(crate) fn entry(&self) -> Entry<'a> {
                let mut entry = Entry { id: self.id(), number: 0, bytes: &[], name: &[] };
                match *self {
                    $(Self::$name($($value),+) => { $(part!(write entry $value $value);)+ })*
                }
                entry
            }

            /// The property that an entry says. `None` for a topic alias.
            pub(crate) fn of(entry: &Entry<'a>) -> Option<Self> {
                Some(match entry.id {
                    $(PropertyId::$name => Self::$name($(part!(read entry $value)),+),)*
                    PropertyId::TopicAlias => return None,
                })
            }
        }
    };
}

property_table!(listed enumeration);

impl<'a> Property<'a> {
    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        let Entry {
            id,
            number,
            bytes,
            name,
        } = self.entry();
        out.u8(id.get());
        let (kind, field) = (id.kind(), Field::Property(id));
        out.refuse_if(
            kind.is_non_zero() && number == 0,
            EncodeError::PropertyValue(id),
        );
        match kind {
            Kind::Bool => out.u8(low_byte(number)),
            Kind::U16 | Kind::U16NonZero => out.u16(low_half(number)),
            Kind::U32 | Kind::U32NonZero => out.u32(number),
            Kind::VarInt => match VarInt::new(number) {
                Some(number) => out.varint(number),
                None => out.refuse(EncodeError::PropertyValue(id)),
            },
            Kind::Topic | Kind::Binary => out.binary(field, bytes),
            Kind::Text => out.text(field, checked_str(bytes)),
            Kind::Pair => {
                out.text(field, checked_str(name));
                out.text(field, checked_str(bytes));
            }
        }
    }
}

impl<'a> Take<'a> for Property<'a> {
    /// The next property. Topic aliases are passed over: they belong to PUBLISH itself.
    #[allow(
        private_interfaces,
        reason = "sealed: only this crate can name the trait"
    )]
    fn take(bytes: &mut Reader<'a, '_>) -> Option<Self> {
        let mut rest = wire::Reader::new(bytes.rest());
        loop {
            let entry = rest.next_property()?;
            let len = bytes.left().saturating_sub(rest.rest.len());
            bytes.bytes(len).ok()?;
            if let Some(property) = Self::of(&entry) {
                return Some(property);
            }
        }
    }
}

/// The properties that a block has, a bit for each identifier.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen(u32);

impl Seen {
    #[inline]
    pub(crate) fn check<S: Sink>(&mut self, id: PropertyId, place: Place, out: &mut S) {
        let bit = id.bit();
        if !id.fits(place.0) {
            out.refuse(EncodeError::MisplacedProperty(id));
        }
        if self.0 & bit != 0 && !place.may_repeat(id) {
            out.refuse(EncodeError::DuplicateProperty(id));
        }
        self.0 |= bit;
    }

    pub(crate) const fn data_without_method(self) -> bool {
        lacks_method(self.0)
    }
}

/// One pass over a received block: every identifier known, in its place, once, its value whole and in range.
pub(crate) fn validate(block: &mut Reader<'_, '_>, place: Place) -> Read<Option<TopicAlias>> {
    let mut seen = 0_u32;
    let mut alias = None;
    while !block.is_empty() {
        let start = block.left();
        let found = block.varint()?;
        let entry = usize::try_from(found)
            .ok()
            .and_then(|found| TABLE.get(found).copied().flatten());
        let Some((id, kind)) = entry else {
            return Err(block.fault_at(start, Rule::UnknownProperty { found }));
        };
        if !id.fits(place.0) {
            return Err(block.fault_at(start, Rule::MisplacedProperty(id)));
        }
        let bit = id.bit();
        if seen & bit != 0 && !place.may_repeat(id) {
            return Err(block.fault_at(start, Rule::DuplicateProperty(id)));
        }
        seen |= bit;
        let value = block.left();
        let number = match kind {
            Kind::Text => block.text_bytes().map(|_| 0)?,
            // 5 [MQTT-3.3.2-14]
            Kind::Topic => topic::read_name(block).map(|_| 0)?,
            Kind::Pair => {
                block.text_bytes()?;
                block.text_bytes().map(|_| 0)?
            }
            _ => number(kind, block)?,
        };
        let in_range = match kind {
            Kind::Bool => number <= 1,
            Kind::U16NonZero | Kind::U32NonZero | Kind::VarInt => number != 0,
            _ => true,
        };
        if !in_range {
            return Err(block.fault_at(value, Rule::PropertyValue(id)));
        }
        if id == PropertyId::TopicAlias {
            alias = u16::try_from(number).ok().and_then(TopicAlias::new);
        }
    }
    if lacks_method(seen) {
        return Err(block.fault(Rule::AuthDataWithoutMethod));
    }
    Ok(alias)
}
