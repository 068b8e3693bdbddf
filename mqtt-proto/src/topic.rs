//! Topic names and topic filters: section 4.7 of both standards, shared subscriptions 4.8 of 5.

use core::fmt;

use crate::error::Rule;
use crate::list::sealed::ReadElement;
use crate::num::{checked_str, to_u32};
use crate::wire::Reader;
use crate::wire::text::{self, Wrong};

/// Why a string is not a topic name or not a topic filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("byte {at}: {rule}")]
pub struct InvalidTopic {
    /// Offset of the byte that breaks the rule.
    pub at: usize,
    /// The rule that is broken.
    pub rule: Rule,
}

/// The topic of a message: one to 65,535 bytes of UTF-8 without U+0000, `+` and `#`.
///
/// ```
/// use mqtt_proto::TopicName;
/// assert_eq!(TopicName::new("a/b").unwrap().as_str(), "a/b");
/// assert_eq!(TopicName::new("a/+").unwrap_err().to_string(), "byte 2: topic name contains a wildcard");
/// const STATUS: TopicName<'static> = TopicName::from_static("pump/7/status"); // an invalid name does not compile
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicName<'a>(&'a [u8]);

impl<'a> TopicName<'a> {
    /// The empty name of a PUBLISH whose topic alias alone names the topic (5, section 3.3.2.3.4). It is not a valid topic.
    pub const NONE: Self = Self(&[]);

    /// Checks a topic name.
    ///
    /// # Errors
    /// [`InvalidTopic`] if the name is empty, longer than 65,535 bytes, or has U+0000 or a wildcard.
    pub fn new(name: &'a str) -> Result<Self, InvalidTopic> {
        Self::from_bytes(name.as_bytes())
    }

    /// Checks a topic name whose bytes may be ill-formed UTF-8.
    ///
    /// # Errors
    /// As [`Self::new`], and if the bytes are ill-formed UTF-8.
    pub fn from_bytes(name: &'a [u8]) -> Result<Self, InvalidTopic> {
        check(name, text::name).map(Self)
    }

    /// Makes a topic name of a literal. In a constant the compiler checks it.
    ///
    /// # Panics
    /// Where [`Self::new`] would fail. In a constant the build fails.
    #[must_use]
    #[allow(clippy::panic, reason = "meant for the compiler")]
    pub const fn from_static(name: &'static str) -> TopicName<'static> {
        let bytes = name.as_bytes();
        assert!(
            !bytes.is_empty() && bytes.len() <= 65_535,
            "a topic has 1 to 65,535 bytes"
        );
        assert!(
            text::has_none(bytes, true),
            "a topic name has no U+0000 and no wildcard"
        );
        TopicName(bytes)
    }

    /// Makes a topic name of bytes that were checked before.
    #[inline]
    pub(crate) const fn validated(name: &'a [u8]) -> Self {
        Self(name)
    }

    /// Returns the name as text. Its bytes are checked to be UTF-8 again, because this crate has no `unsafe`;
    /// [`Self::as_bytes`] costs nothing.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        checked_str(self.0)
    }

    /// Returns the name as bytes.
    #[must_use]
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Returns whether the name is [`Self::NONE`].
    #[must_use]
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The topic filter of a subscription: a name that may have wildcards, perhaps with the share name of a shared subscription.
///
/// ```
/// use mqtt_proto::{TopicFilter, TopicName};
/// let filter = TopicFilter::new("sport/+/player1/#").unwrap();
/// assert!(filter.matches(TopicName::new("sport/tennis/player1").unwrap()));
/// assert!(!filter.matches(TopicName::new("sport/tennis/player2").unwrap()));
/// assert!(TopicFilter::new("sport/tennis#").is_err());
/// assert_eq!(TopicFilter::new("$share/workers/jobs/#").unwrap().share_name(), Some("workers"));
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicFilter<'a>(&'a [u8]);

impl<'a> TopicFilter<'a> {
    /// Checks a topic filter and the form of a shared subscription (5 \[MQTT-4.8.2-1\]).
    ///
    /// # Errors
    /// [`InvalidTopic`] if the filter is empty, longer than 65,535 bytes, has U+0000 or misplaced wildcards, or starts with
    /// `$share/` without a valid share name and filter.
    pub fn new(filter: &'a str) -> Result<Self, InvalidTopic> {
        check(filter.as_bytes(), |bytes| text::filter(bytes, true)).map(Self)
    }

    /// Makes a topic filter of a literal. In a constant the compiler checks it.
    ///
    /// ```
    /// use mqtt_proto::TopicFilter;
    /// const PUMPS: TopicFilter<'static> = TopicFilter::from_static("pump/+/status");
    /// assert_eq!(Ok(PUMPS), TopicFilter::new("pump/+/status"));
    /// ```
    ///
    /// # Panics
    /// Where [`Self::new`] would fail, and for a shared subscription, which only [`Self::new`] accepts. In a constant the build
    /// fails.
    #[must_use]
    #[allow(clippy::panic, reason = "meant for the compiler")]
    pub const fn from_static(filter: &'static str) -> TopicFilter<'static> {
        let bytes = filter.as_bytes();
        assert!(
            !bytes.is_empty() && bytes.len() <= 65_535,
            "a filter has 1 to 65,535 bytes"
        );
        assert!(
            !matches!(bytes, [b'$', b's', b'h', b'a', b'r', b'e', b'/', ..]),
            "a shared filter is checked by `new`"
        );
        assert!(
            text::misplaced(bytes).is_none() && text::has_none(bytes, false),
            "a filter has no U+0000, and wildcards only as whole levels, `#` as the last"
        );
        TopicFilter(bytes)
    }

    /// Returns the filter as text, with its share name.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        checked_str(self.0)
    }

    /// Returns the filter as bytes, with its share name.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Returns the share name if this is a shared subscription (5, section 4.8.2).
    #[must_use]
    pub fn share_name(&self) -> Option<&'a str> {
        text::split_share(self.0).map(|(name, _)| checked_str(name))
    }

    /// Returns whether this is a shared subscription (5, section 4.8.2).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.starts_with(text::SHARE)
    }

    /// Returns the filter without `$share/` and the share name. Topic names are compared with this.
    #[must_use]
    pub fn topic_levels(&self) -> &'a [u8] {
        text::split_share(self.0).map_or(self.0, |(_, filter)| filter)
    }

    /// Returns whether messages with this topic belong to the subscription.
    ///
    /// Names are compared byte by byte, without normalisation (3.1.1 \[MQTT-4.7.3-4\], 5 \[MQTT-4.7.3-4\]). A filter that
    /// starts with a wildcard does not match topics that start with `$` (3.1.1 \[MQTT-4.7.2-1\], 5 \[MQTT-4.7.2-1\]).
    #[must_use]
    pub fn matches(&self, topic: TopicName<'_>) -> bool {
        let (mut filter, mut name) = (self.topic_levels(), topic.as_bytes());
        if name.first() == Some(&b'$') && matches!(filter.first(), Some(b'+' | b'#')) {
            return false;
        }
        loop {
            let (filter_level, filter_rest) = split_level(filter);
            if filter_level == b"#" {
                return true;
            }
            let (name_level, name_rest) = split_level(name);
            if filter_level != b"+" && filter_level != name_level {
                return false;
            }
            (filter, name) = match (filter_rest, name_rest) {
                (Some(filter), Some(name)) => (filter, name),
                (None, None) => return true,
                // "sport/#" also matches "sport", its parent level (section 4.7.1.2).
                (Some(filter), None) => return filter == b"#",
                (None, Some(_)) => return false,
            };
        }
    }
}

fn split_level(topic: &[u8]) -> (&[u8], Option<&[u8]>) {
    match topic
        .iter()
        .position(|&b| b == b'/')
        .and_then(|slash| topic.split_at_checked(slash))
    {
        Some((level, rest)) => (level, rest.split_first().map(|(_, rest)| rest)),
        None => (topic, None),
    }
}

impl fmt::Debug for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> ReadElement<'a> for TopicFilter<'a> {
    fn read(bytes: &mut Reader<'a>) -> Option<Self> {
        Some(Self(bytes.binary()))
    }
}

fn check(topic: &[u8], rules: impl FnOnce(&[u8]) -> Wrong) -> Result<&[u8], InvalidTopic> {
    // 3.1.1 [MQTT-4.7.3-1], 5 [MQTT-4.7.3-1]
    if topic.is_empty() {
        let rule = Rule::TopicEmpty;
        return Err(InvalidTopic { at: 0, rule });
    }
    // 3.1.1 [MQTT-4.7.3-3], 5 [MQTT-4.7.3-3]
    let max = usize::from(u16::MAX);
    if topic.len() > max {
        let count = to_u32(topic.len().saturating_sub(max));
        let rule = Rule::TrailingBytes { count };
        return Err(InvalidTopic { at: max, rule });
    }
    let wrong = rules(topic);
    Rule::plain(wrong.fault).map_or(Ok(topic), |rule| {
        let at = usize::from(wrong.at);
        Err(InvalidTopic { at, rule })
    })
}
