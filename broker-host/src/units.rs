//! Holds the types of values in the settings.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The longest time of [`Seconds`]. It also refuses the milliseconds of earlier versions.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A time in a setting, as a number of seconds that may have a fraction. It is stored in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "f64")]
pub struct Seconds(u32);

/// The number is not one of seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be a number of seconds, such as 10 or 0.5, and at most 3600")]
pub struct NoSeconds;

impl TryFrom<Duration> for Seconds {
    type Error = NoSeconds;

    fn try_from(time: Duration) -> Result<Self, NoSeconds> {
        let millis = u32::try_from(time.as_millis()).map_err(|_| NoSeconds)?;
        (time <= LONGEST).then_some(Self(millis)).ok_or(NoSeconds)
    }
}

impl TryFrom<f64> for Seconds {
    type Error = NoSeconds;

    fn try_from(seconds: f64) -> Result<Self, NoSeconds> {
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| NoSeconds)?;
        Self::try_from(time)
    }
}

impl FromStr for Seconds {
    type Err = NoSeconds;

    fn from_str(text: &str) -> Result<Self, NoSeconds> {
        let seconds: f64 = text.parse().map_err(|_| NoSeconds)?;
        Self::try_from(seconds)
    }
}

/// Returns the time in milliseconds.
impl From<Seconds> for u32 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

/// The servers of an engine as a URL, which may have a password.
#[derive(Clone, Deserialize, Eq, PartialEq)]
pub struct EngineUrl(String);

impl EngineUrl {
    /// Returns the text of the setting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for EngineUrl {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// Shows no part of the URL, because any part of a wrong one may be a password.
impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineUrl(..)")
    }
}

/// Reads the value of a key.
pub(crate) fn value<'de, D: Deserializer<'de>, V: Value>(from: D) -> Result<Option<V>, D::Error> {
    V::read(from).map(Some)
}

/// A value of a key.
pub(crate) trait Value: Sized {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

macro_rules! values {
    ($($one:ty)*) => {
        $(impl Value for $one {
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from)
            }
        })*
    };
}

values!(bool String PathBuf);

impl Value for Vec<String> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        texts(from)
    }
}

impl Value for Vec<PathBuf> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        texts(from)
    }
}

/// Reads a list of texts. One text is a list of one.
fn texts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Texts<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Texts<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text in quotes, or a list of such texts in brackets")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list)).map_err(A::Error::custom)
        }
    }

    from.deserialize_any(Texts(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn seconds_may_have_a_fraction() {
        let millis = |text: &str| text.parse::<Seconds>().map(u32::from);
        assert_eq!(millis("10"), Ok(10_000));
        assert_eq!(millis("0.25"), Ok(250));
        assert_eq!(millis("3600"), Ok(3_600_000));
        // The last is a number of milliseconds of an earlier version.
        for text in ["", "-1", "NaN", "inf", "1e9", "10s", "10000"] {
            assert_eq!(millis(text), Err(NoSeconds), "{text}");
        }
        let parsed = Settings::parse("connect-timeout = 2\nslow-consumer = 0.5").unwrap();
        let config = parsed.config();
        assert_eq!(
            (config.connect_timeout_ms, config.slow_consumer_ms),
            (2_000, 500)
        );
        let (line, error) = Settings::parse("\nconnect-timeout = 10000").unwrap_err();
        assert_eq!((line, error.to_string()), (Some(2), NoSeconds.to_string()));
    }

    #[test]
    fn one_text_is_a_list_of_one() {
        let both = |one: &str, list: &str| {
            let shown = |text: &str| format!("{:?}", Settings::parse(text).unwrap());
            assert_eq!(shown(one), shown(list));
        };
        both("bind = 'ws://h:1'", "bind = ['ws://h:1']");
        both("cert = 'a'\nkey = 'b'", "cert = ['a']\nkey = ['b']");
        both("[[listener]]\nbind = 'h:1'", "[[listener]]\nbind = ['h:1']");
        both("protocol-versions = '5'", "protocol-versions = ['5']");
        for text in ["bind = 1883", "bind = [1883]", "bind = { a = 1 }"] {
            let (line, error) = Settings::parse(text).unwrap_err();
            assert_eq!(line, Some(1));
            assert!(!error.to_string().contains("sequence"), "{error}");
        }
        let (_, error) = Settings::parse("bind = 1883").unwrap_err();
        let clear = "expected a text in quotes, or a list of such texts in brackets";
        assert!(error.to_string().ends_with(clear), "{error}");
    }

    #[test]
    fn the_password_of_an_engine_is_not_shown() {
        let settings = Settings::parse("engine = 'nats://user:secret@host'").unwrap();
        assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
    }
}
