//! Properties of MQTT 5 (section 2.2.2): a length, then pairs of identifier and value. The standard's table 2-4 is in
//! [`crate::wire`].

use crate::error::{Field, Unencodable};
use crate::list::sealed::ReadElement;
use crate::num::{checked_str, low_half};
use crate::out::Out;
use crate::topic::TopicName;
use crate::tune::FAST;
use crate::wire::property::property_table;
use crate::wire::{Entry, PropertyId, PropertyKind, Reader};

impl Entry<'_> {
    /// Writes the property in the layout that the table says.
    #[inline(always)]
    pub(crate) fn write(&self, out: &mut Out<'_>) {
        let (id, kind, field) = (self.id, self.id.kind(), Field::Property(self.id));
        if kind.is_number() {
            out.refuse_if(!kind.holds(self.number), Unencodable::PropertyValue(id));
            return out.writer.number(id, self.number);
        }
        out.writer.u8(id.get());
        if kind == PropertyKind::Pair {
            out.text(field, self.name);
        }
        match kind {
            PropertyKind::Text | PropertyKind::Pair => out.text(field, self.bytes),
            // The type of a topic ensures that it is valid text.
            _ => out.binary(field, self.bytes),
        }
    }
}

/// A type of a property's value. An [`Entry`] stores the value as a number or as bytes.
pub(crate) trait EntryValue<'a> {
    fn read(number: u32, bytes: &'a [u8]) -> Self;
    fn number(self) -> u32;
    fn bytes(self) -> &'a [u8];
}

macro_rules! entry_values {
    ($($type:ty: $read:expr, $number:expr, $bytes:expr;)*) => {
        $(impl<'a> EntryValue<'a> for $type {
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

entry_values! {
    bool: |number, _| number != 0, u32::from, |_| &[];
    u16: |number, _| low_half(number), u32::from, |_| &[];
    u32: |number, _| number, |number| number, |_| &[];
    &'a str: |_, bytes| checked_str(bytes), |_| 0, str::as_bytes;
    &'a [u8]: |_, bytes| bytes, |_| 0, |bytes| bytes;
    TopicName<'a>: |_, bytes| TopicName::validated(bytes), |_| 0, |topic| topic.as_bytes();
}

/// Reads or writes one value of a row of the table. A value called `name` is the first of two.
macro_rules! part {
    (read $entry:ident name) => {
        EntryValue::read(0, $entry.name)
    };
    (read $entry:ident $value:ident) => {
        EntryValue::read($entry.number, $entry.bytes)
    };
    (write $entry:ident name $value:ident) => {
        $entry.name = EntryValue::bytes($value)
    };
    (write $entry:ident $name:ident $value:ident) => {
        ($entry.number, $entry.bytes) = (EntryValue::number($value), EntryValue::bytes($value))
    };
}

macro_rules! enumeration {
    ($($(#[$doc:meta])* $id:literal $name:ident($($value:ident: $type:ty),+)
        $getter:ident $text:literal $kind:ident [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        /// A property with its value.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Property<'a> {
            $($(#[$doc])* $name($($type),+),)*
        }

        impl<'a> Property<'a> {
            /// Returns the identifier.
            #[must_use]
            pub const fn id(&self) -> PropertyId {
                match self { $(Self::$name(..) => PropertyId::$name,)* }
            }

            #[inline]
            pub(crate) fn entry(&self) -> Entry<'a> {
                let mut entry = Entry { id: self.id(), number: 0, bytes: &[], name: &[] };
                match *self {
                    $(Self::$name($($value),+) => { $(part!(write entry $value $value);)+ })*
                }
                entry
            }

            /// Writes the property. On hosts each property has code of its own, because looking up its layout costs 34
            /// instructions.
            #[inline]
            pub(crate) fn write(&self, out: &mut Out<'_>) {
                if !FAST {
                    return self.entry().write(out);
                }
                match *self {
                    $(Self::$name($($value),+) => {
                        let mut entry = Entry { id: PropertyId::$name, number: 0, bytes: &[], name: &[] };
                        $(part!(write entry $value $value);)+
                        entry.write(out);
                    })*
                }
            }

            /// Makes the property of an entry. Returns `None` for a topic alias.
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

/// The value of any property.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PropertyValue<'a> {
    /// A value of [`PropertyKind::Bool`].
    Flag(bool),
    /// A value of another kind that is a number.
    Number(u32),
    /// A value of [`PropertyKind::Text`].
    Text(&'a str),
    /// A value of [`PropertyKind::Topic`].
    Topic(TopicName<'a>),
    /// A value of [`PropertyKind::Binary`].
    Binary(&'a [u8]),
    /// A value of [`PropertyKind::Pair`].
    Pair(&'a str, &'a str),
}

impl<'a> Property<'a> {
    /// Makes a property of its identifier and value. Returns `None` if the value is of another kind or out of its range, and
    /// for a topic alias.
    ///
    /// ```
    /// use mqtt_proto::{Property, PropertyId, PropertyValue};
    /// let property = Property::new(PropertyId::ReceiveMaximum, PropertyValue::Number(4));
    /// assert_eq!(property, Some(Property::ReceiveMaximum(4)));
    /// assert_eq!(property.unwrap().value(), PropertyValue::Number(4));
    /// assert_eq!(Property::new(PropertyId::ReceiveMaximum, PropertyValue::Number(0)), None);
    /// ```
    #[must_use]
    pub fn new(id: PropertyId, value: PropertyValue<'a>) -> Option<Self> {
        use PropertyKind as Kind;
        let (number, bytes, name) = match (id.kind(), value) {
            (Kind::Bool, PropertyValue::Flag(flag)) => (u32::from(flag), &[][..], ""),
            (kind, PropertyValue::Number(number)) if kind != Kind::Bool && kind.holds(number) => {
                (number, &[][..], "")
            }
            (Kind::Text, PropertyValue::Text(text)) => (0, text.as_bytes(), ""),
            (Kind::Topic, PropertyValue::Topic(topic)) => (0, topic.as_bytes(), ""),
            (Kind::Binary, PropertyValue::Binary(bytes)) => (0, bytes, ""),
            (Kind::Pair, PropertyValue::Pair(name, value)) => (0, value.as_bytes(), name),
            _ => return None,
        };
        let name = name.as_bytes();
        Self::of(&Entry {
            id,
            number,
            bytes,
            name,
        })
    }

    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> PropertyValue<'a> {
        let Entry {
            id,
            number,
            bytes,
            name,
        } = self.entry();
        match id.kind() {
            PropertyKind::Bool => PropertyValue::Flag(number != 0),
            PropertyKind::Text => PropertyValue::Text(checked_str(bytes)),
            PropertyKind::Topic => PropertyValue::Topic(TopicName::validated(bytes)),
            PropertyKind::Binary => PropertyValue::Binary(bytes),
            PropertyKind::Pair => PropertyValue::Pair(checked_str(name), checked_str(bytes)),
            _ => PropertyValue::Number(number),
        }
    }
}

impl<'a> ReadElement<'a> for Property<'a> {
    /// Reads the next property. A topic alias is skipped, because it is a field of [`crate::Publish`].
    fn read(bytes: &mut Reader<'a>) -> Option<Self> {
        loop {
            if let Some(property) = Self::of(&bytes.next_property()?) {
                return Some(property);
            }
        }
    }
}
