//! Parses properties of MQTT 5 from arguments: `-D publish content-type json`.

use mqtt_tokio::proto::{Property, PropertyId, PropertyKind, PropertyValue, TopicAlias, TopicName};

use crate::failure::{Failure, fail};
use crate::hex;

/// A property with its values as text.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) id: PropertyId,
    values: Vec<String>,
}

/// A property, or the topic alias, which is a field of PUBLISH.
pub(crate) enum Parsed<'a> {
    Property(Property<'a>),
    Alias(TopicAlias),
}

impl Typed {
    /// Makes a property of a name such as `content-type` and its value; user properties have two values.
    pub(crate) fn new(name: &str, values: &[String]) -> Result<Self, Failure> {
        let wanted = name.to_ascii_lowercase();
        let id = PropertyId::ALL
            .iter()
            .copied()
            .find(|id| option_name(*id) == wanted)
            .ok_or_else(|| {
                fail(format!(
                    "{name:?} is not a property; the properties are {}",
                    names()
                ))
            })?;
        let needed = if id.kind() == PropertyKind::Pair {
            2
        } else {
            1
        };
        if values.len() != needed {
            let what = if needed == 2 {
                "a name and a value"
            } else {
                "one value"
            };
            return Err(fail(format!(
                "{} needs {what}, not {}",
                option_name(id),
                values.len()
            )));
        }
        Ok(Self {
            id,
            values: values.to_vec(),
        })
    }

    /// Makes a property of the values of a decoded one.
    pub(crate) const fn of(id: PropertyId, values: Vec<String>) -> Self {
        Self { id, values }
    }

    pub(crate) fn text(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }

    pub(crate) fn pair(&self) -> (String, String) {
        (
            self.text().to_owned(),
            self.values.get(1).cloned().unwrap_or_default(),
        )
    }

    pub(crate) fn number<T: TryFrom<u64>>(&self) -> Result<T, Failure> {
        let number: u64 = self.text().parse().map_err(|_| self.out_of_range())?;
        T::try_from(number).map_err(|_| self.out_of_range())
    }

    pub(crate) fn flag(&self) -> Result<bool, Failure> {
        match self.text() {
            "0" | "false" => Ok(false),
            "1" | "true" => Ok(true),
            other => Err(fail(format!(
                "{}: {other:?} is neither 0 nor 1",
                option_name(self.id)
            ))),
        }
    }

    /// Returns the binary data: the text, or the bytes of hex after `hex:`.
    pub(crate) fn binary(&self) -> Result<Vec<u8>, Failure> {
        self.text()
            .strip_prefix("hex:")
            .map_or_else(|| Ok(self.text().as_bytes().to_vec()), hex::parse)
    }

    fn topic(&self) -> Result<TopicName<'_>, Failure> {
        TopicName::new(self.text())
            .map_err(|error| fail(format!("{}: {error}", option_name(self.id))))
    }

    /// Returns the property for the codec; `binary` is the result of [`Self::binary`].
    pub(crate) fn parse<'a>(&'a self, binary: &'a [u8]) -> Result<Parsed<'a>, Failure> {
        let value = match self.id.kind() {
            PropertyKind::Bool => PropertyValue::Flag(self.flag()?),
            PropertyKind::U16 | PropertyKind::U16NonZero => {
                PropertyValue::Number(self.number::<u16>()?.into())
            }
            PropertyKind::Text => PropertyValue::Text(self.text()),
            PropertyKind::Topic => PropertyValue::Topic(self.topic()?),
            PropertyKind::Binary => PropertyValue::Binary(binary),
            PropertyKind::Pair => {
                let value = self.values.get(1).map_or("", String::as_str);
                PropertyValue::Pair(self.text(), value)
            }
            PropertyKind::U32 | PropertyKind::U32NonZero | PropertyKind::VarInt => {
                PropertyValue::Number(self.number()?)
            }
        };
        if let (PropertyId::TopicAlias, PropertyValue::Number(alias)) = (self.id, value) {
            let alias = u16::try_from(alias).ok().and_then(TopicAlias::new);
            return alias
                .map(Parsed::Alias)
                .ok_or_else(|| fail("topic-alias: 0 is not a topic alias"));
        }
        Property::new(self.id, value)
            .map(Parsed::Property)
            .ok_or_else(|| self.out_of_range())
    }

    fn out_of_range(&self) -> Failure {
        let name = option_name(self.id);
        fail(format!(
            "{name}: {:?} is not a number in its range",
            self.text()
        ))
    }
}

/// A list of properties and their binary data.
#[derive(Debug, Default)]
pub(crate) struct TypedList {
    entries: Vec<(Typed, Vec<u8>)>,
}

impl TypedList {
    pub(crate) fn new(typed: impl IntoIterator<Item = Typed>) -> Result<Self, Failure> {
        let entries = typed
            .into_iter()
            .map(|typed| typed.binary().map(|binary| (typed, binary)))
            .collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// Returns the properties and, separately, the topic alias.
    pub(crate) fn parse(&self) -> Result<(Vec<Property<'_>>, Option<TopicAlias>), Failure> {
        let (mut properties, mut alias) = (Vec::new(), None);
        for (typed, binary) in &self.entries {
            match typed.parse(binary)? {
                Parsed::Property(property) => properties.push(property),
                Parsed::Alias(found) => alias = Some(found),
            }
        }
        Ok((properties, alias))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

pub(crate) fn option_name(id: PropertyId) -> String {
    id.to_string().to_ascii_lowercase().replace(' ', "-")
}

fn names() -> String {
    let names: Vec<_> = PropertyId::ALL.iter().map(|id| option_name(*id)).collect();
    names.join(", ")
}
