//! The properties of one packet: a received block, which is checked in one pass and kept as bytes, or a slice to be sent.

use core::fmt;

use crate::error::{Field, Unencodable};
use crate::id::TopicAlias;
use crate::list::{Backing, List};
use crate::out::Out;
use crate::property::{EntryValue, Property};
use crate::topic::TopicName;
use crate::version::Version;
use crate::wire::property::{allowed, lacks_method, once, property_table};
use crate::wire::{Entry, PropertyId, PropertyKind, Reader};

use content::Content;

/// The properties of a packet: a checked block as it was received, or a slice to be sent.
///
/// A topic alias is never among them; it is [`crate::Publish::topic_alias`].
///
/// ```
/// use mqtt_proto::{Properties, Property};
/// let properties: Properties<'_> = (&[Property::ContentType("json"), Property::UserProperty("a", "b")]).into();
/// assert_eq!(properties.content_type(), Some("json"));
/// assert_eq!(properties.iter().count(), 2);
/// ```
///
/// Without the feature `v5` it stores no properties and only knows whether there were any. No packet can be encoded with them
/// then.
#[derive(Clone, Copy)]
pub struct Properties<'a>(Content<'a>);

/// A function that writes a slice of properties.
type WriteSlice = for<'x> fn(&[Property<'x>], &mut Seen, &mut Out<'_>);

fn no_slice(_: &[Property<'_>], _: &mut Seen, _: &mut Out<'_>) {}

fn write_slice(slice: &[Property<'_>], seen: &mut Seen, out: &mut Out<'_>) {
    for property in slice {
        seen.check(property.id(), out);
        property.write(out);
    }
}

#[cfg(feature = "v5")]
mod content {
    use super::{Backing, List, Property, WriteSlice};

    #[derive(Clone, Copy)]
    pub(super) enum Content<'a> {
        /// A received block that was checked.
        Wire(&'a [u8]),
        /// A slice to be sent, and the function that writes it. A program that never makes a slice does not link that function.
        Slice(&'a [Property<'a>], WriteSlice),
    }

    impl<'a> Content<'a> {
        pub(super) const fn wire(block: &'a [u8]) -> Self {
            Self::Wire(block)
        }

        pub(super) const fn slice(slice: &'a [Property<'a>], write: WriteSlice) -> Self {
            Self::Slice(slice, write)
        }

        pub(super) const fn list(&self) -> List<'a, Property<'a>> {
            match *self {
                Self::Wire(block) => List::validated(block),
                Self::Slice(slice, _) => List {
                    backing: Backing::Slice(slice),
                },
            }
        }

        pub(super) const fn is_empty(&self) -> bool {
            match *self {
                // A block with a topic alias alone has no properties.
                Self::Wire(block) => match block {
                    [] => true,
                    [id, _, _] => *id == super::PropertyId::TopicAlias.get(),
                    _ => false,
                },
                Self::Slice(slice, _) => slice.is_empty(),
            }
        }

        /// Returns the function that writes the slice.
        pub(super) const fn write(&self) -> WriteSlice {
            match *self {
                Self::Wire(_) => super::no_slice,
                Self::Slice(_, write) => write,
            }
        }
    }
}

#[cfg(not(feature = "v5"))]
mod content {
    use core::marker::PhantomData;

    use super::{List, Property, WriteSlice};

    #[derive(Clone, Copy)]
    pub(super) struct Content<'a> {
        any: bool,
        lifetime: PhantomData<&'a ()>,
    }

    impl<'a> Content<'a> {
        pub(super) const fn wire(block: &'a [u8]) -> Self {
            Self {
                any: !block.is_empty(),
                lifetime: PhantomData,
            }
        }

        pub(super) const fn slice(slice: &'a [Property<'a>], _: WriteSlice) -> Self {
            Self {
                any: !slice.is_empty(),
                lifetime: PhantomData,
            }
        }

        #[allow(clippy::unused_self, reason = "the other one needs it")]
        pub(super) const fn list(&self) -> List<'a, Property<'a>> {
            List::EMPTY
        }

        pub(super) const fn is_empty(&self) -> bool {
            !self.any
        }

        #[allow(clippy::unused_self, reason = "the other one needs it")]
        pub(super) const fn write(&self) -> WriteSlice {
            super::no_slice
        }
    }
}

/// An iterator over the properties, in their order.
pub type PropertyIter<'a> = crate::list::ListIter<'a, Property<'a>>;

macro_rules! getters {
    ($($(#[$doc:meta])* $id:literal $name:ident($value:ident: $type:ty)
        $getter:ident $text:literal $kind:ident [$($packet:ident)*] $(+ $will:ident)?;)*) => {
        impl<'a> Properties<'a> {
            $($(#[$doc])*
            #[must_use]
            pub fn $getter(&self) -> Option<$type> {
                self.find(PropertyId::$name).map(|entry| EntryValue::read(entry.number, entry.bytes))
            })*
        }
    };
}

property_table!(single getters);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self::validated(&[]);

    /// Returns an iterator over the properties, in their order.
    #[must_use]
    pub const fn iter(&self) -> PropertyIter<'a> {
        self.0.list().iter()
    }

    /// Returns whether there are no properties.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the user properties in their order (5 \[MQTT-3.3.2-18\]).
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Returns the subscription identifiers. PUBLISH may have several.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// Returns the property with this identifier. It does not use [`Property`], whose code for all 27 properties a device would
    /// link.
    fn find(&self, wanted: PropertyId) -> Option<Entry<'a>> {
        match self.0.list().backing {
            Backing::Slice(properties) => properties
                .iter()
                .find(|property| property.id() == wanted)
                .map(Property::entry),
            Backing::Wire(bytes) => Reader::new(bytes).property(wanted),
        }
    }

    /// Calls `then` with each property that is a number. One call is cheaper than several getters.
    ///
    /// ```
    /// use mqtt_proto::{Properties, Property, PropertyId};
    /// let properties: Properties<'_> = (&[Property::ReceiveMaximum(4), Property::MaximumQoS(true)]).into();
    /// let mut numbers = vec![];
    /// properties.each_number(&mut |id, number| numbers.push((id, number)));
    /// assert_eq!(numbers, [(PropertyId::ReceiveMaximum, 4), (PropertyId::MaximumQoS, 1)]);
    /// ```
    pub fn each_number(&self, then: &mut dyn FnMut(PropertyId, u32)) {
        let mut each = |entry: Entry<'_>| {
            if entry.id.kind().is_number() {
                then(entry.id, entry.number);
            }
        };
        match self.0.list().backing {
            Backing::Slice(properties) => properties
                .iter()
                .for_each(|property| each(property.entry())),
            Backing::Wire(bytes) => {
                let mut rest = Reader::new(bytes);
                core::iter::from_fn(|| rest.next_property()).for_each(each);
            }
        }
    }

    /// Returns the value of a property that is text, a topic or bytes. It is returned as bytes, which saves another check for
    /// UTF-8.
    ///
    /// ```
    /// use mqtt_proto::{Properties, Property, PropertyId};
    /// let properties: Properties<'_> = (&[Property::ContentType("json")]).into();
    /// assert_eq!(properties.bytes(PropertyId::ContentType), Some(&b"json"[..]));
    /// ```
    #[must_use]
    pub fn bytes(&self, wanted: PropertyId) -> Option<&'a [u8]> {
        let kind = wanted.kind();
        if kind.is_number() || kind == PropertyKind::Pair {
            return None;
        }
        self.find(wanted).map(|entry| entry.bytes)
    }

    /// Returns whether there is a property with this identifier.
    #[must_use]
    #[inline]
    pub fn has(&self, wanted: PropertyId) -> bool {
        match self.0.list().backing {
            Backing::Slice(slice) => slice.iter().any(|property| property.id() == wanted),
            Backing::Wire(bytes) => Reader::new(bytes).property(wanted).is_some(),
        }
    }

    /// Makes properties of a block that was checked.
    #[inline]
    pub(crate) const fn validated(block: &'a [u8]) -> Self {
        Self(Content::wire(block))
    }

    /// Returns the received block. It is empty if the properties are a slice.
    #[cfg(feature = "bytes")]
    pub(crate) const fn block(&self) -> &'a [u8] {
        match self.0.list().backing {
            Backing::Wire(block) => block,
            Backing::Slice(_) => &[],
        }
    }

    /// Returns a lower limit of the block's length in bytes.
    #[inline]
    pub(crate) const fn least(&self) -> usize {
        match self.0.list().backing {
            // A topic alias takes three bytes and is not copied.
            Backing::Wire(block) => block.len().saturating_sub(3),
            // Each property has an identifier and at least one byte.
            Backing::Slice(list) => list.len().saturating_mul(2),
        }
    }

    /// Writes the length and the block. Where the version has no properties, there must be none.
    pub(crate) fn write_if(&self, version: Version, packet: u8, out: &mut Out<'_>) {
        if version.is_v5() {
            self.write(packet, None, out);
        } else {
            let needs_v5 = Unencodable::NeedsV5(Field::Properties);
            out.refuse_if(!self.is_empty(), needs_v5);
        }
    }

    /// Writes the length and the block in MQTT 5. `alias` is the topic alias of a PUBLISH.
    #[inline]
    pub(crate) fn write(&self, packet: u8, alias: Option<TopicAlias>, out: &mut Out<'_>) {
        // 5 [MQTT-2.2.2-1]
        if alias.is_none() && self.0.is_empty() {
            return out.writer.u8(0);
        }
        out.sized(0, |out| self.write_block(packet, alias, out));
    }

    fn write_block(&self, packet: u8, alias: Option<TopicAlias>, out: &mut Out<'_>) {
        if let Some(alias) = alias {
            out.writer
                .number(PropertyId::TopicAlias, u32::from(alias.get()));
        }
        let mut seen = Seen {
            seen: 0,
            allowed: allowed(packet),
            once: once(packet),
        };
        match self.0.list().backing {
            Backing::Slice(slice) => (self.0.write())(slice, &mut seen, out),
            Backing::Wire(bytes) => {
                let mut rest = Reader::new(bytes);
                let mut before = bytes;
                while let Some(entry) = rest.next_property() {
                    let len = before.len().wrapping_sub(rest.rest.len());
                    // The topic alias of a received packet is not valid in the packet that is written.
                    if entry.id != PropertyId::TopicAlias {
                        seen.check(entry.id, out);
                        out.writer.bytes(before.get(..len).unwrap_or_default());
                    }
                    before = rest.rest;
                }
            }
        }
        out.refuse_if(lacks_method(seen.seen), Unencodable::AuthDataWithoutMethod);
    }
}

/// The properties that were written, and those that the packet may have at all and only once.
struct Seen {
    seen: u32,
    allowed: u32,
    once: u32,
}

impl Seen {
    fn check(&mut self, id: PropertyId, out: &mut Out<'_>) {
        let bit = id.bit();
        let twice = self.seen & bit & self.once != 0;
        out.refuse_if(self.allowed & bit == 0, Unencodable::MisplacedProperty(id));
        out.refuse_if(twice, Unencodable::DuplicateProperty(id));
        self.seen |= bit;
    }
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a> From<&'a [Property<'a>]> for Properties<'a> {
    fn from(slice: &'a [Property<'a>]) -> Self {
        Self(Content::slice(slice, write_slice))
    }
}

impl<'a, const N: usize> From<&'a [Property<'a>; N]> for Properties<'a> {
    fn from(slice: &'a [Property<'a>; N]) -> Self {
        Self::from(&slice[..])
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Properties<'_> {}

/// Shows all properties, without the authentication data, which may be a password or a token.
impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for property in self {
            match property {
                Property::AuthenticationData(_) => {
                    list.entry(&format_args!("AuthenticationData(..)"))
                }
                other => list.entry(&other),
            };
        }
        list.finish()
    }
}

impl<'a> IntoIterator for &Properties<'a> {
    type IntoIter = PropertyIter<'a>;
    type Item = Property<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
