//! Properties of MQTT 5 as arguments: `-D publish content-type json`.

use mqtt_tokio::proto::Property;
use mqtt_tokio::proto::{PropertyId, TopicAlias, TopicName};

use crate::failure::{Failure, fail};
use crate::hex;

/// A property with values as they were typed.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) id: PropertyId,
    values: Vec<String>,
}

/// A property, or the topic alias, which belongs to PUBLISH itself.
pub(crate) enum Parsed<'a> {
    Property(Property<'a>),
    Alias(TopicAlias),
}

impl Typed {
    /// From a name such as `content-type` and its value; user properties have two.
    pub(crate) fn new(name: &str, values: &[String]) -> Result<Self, Failure> {
        let wanted = name.to_ascii_lowercase();
        let id = PropertyId::ALL
            .iter()
            .copied()
            .find(|id| option_name(*id) == wanted)
            .ok_or_else(|| {
                fail(format!(
                    "{name:?} is no property; the properties are {}",
                    names()
                ))
            })?;
        let needed = if id == PropertyId::UserProperty { 2 } else { 1 };
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

    /// From the values that a decoded property has.
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
        let wrong = || {
            fail(format!(
                "{}: {:?} is no number in its range",
                option_name(self.id),
                self.text()
            ))
        };
        let number: u64 = self.text().parse().map_err(|_| wrong())?;
        T::try_from(number).map_err(|_| wrong())
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

    /// Binary data is the text given, or hex behind `hex:`.
    pub(crate) fn binary(&self) -> Result<Vec<u8>, Failure> {
        self.text()
            .strip_prefix("hex:")
            .map_or_else(|| Ok(self.text().as_bytes().to_vec()), hex::parse)
    }

    fn topic(&self) -> Result<TopicName<'_>, Failure> {
        TopicName::new(self.text())
            .map_err(|error| fail(format!("{}: {error}", option_name(self.id))))
    }

    /// As the codec takes it; `binary` is what [`Self::binary`] made.
    pub(crate) fn parse<'a>(&'a self, binary: &'a [u8]) -> Result<Parsed<'a>, Failure> {
        use Property as V;
        use PropertyId as P;
        Ok(Parsed::Property(match self.id {
            P::PayloadFormatIndicator => V::PayloadFormatIndicator(self.flag()?),
            P::MessageExpiryInterval => V::MessageExpiryInterval(self.number()?),
            P::ContentType => V::ContentType(self.text()),
            P::ResponseTopic => V::ResponseTopic(self.topic()?),
            P::CorrelationData => V::CorrelationData(binary),
            P::SubscriptionIdentifier => V::SubscriptionIdentifier(self.number()?),
            P::SessionExpiryInterval => V::SessionExpiryInterval(self.number()?),
            P::AssignedClientIdentifier => V::AssignedClientIdentifier(self.text()),
            P::ServerKeepAlive => V::ServerKeepAlive(self.number()?),
            P::AuthenticationMethod => V::AuthenticationMethod(self.text()),
            P::AuthenticationData => V::AuthenticationData(binary),
            P::RequestProblemInformation => V::RequestProblemInformation(self.flag()?),
            P::WillDelayInterval => V::WillDelayInterval(self.number()?),
            P::RequestResponseInformation => V::RequestResponseInformation(self.flag()?),
            P::ResponseInformation => V::ResponseInformation(self.text()),
            P::ServerReference => V::ServerReference(self.text()),
            P::ReasonString => V::ReasonString(self.text()),
            P::ReceiveMaximum => V::ReceiveMaximum(self.number()?),
            P::TopicAliasMaximum => V::TopicAliasMaximum(self.number()?),
            P::MaximumQoS => V::MaximumQoS(self.flag()?),
            P::RetainAvailable => V::RetainAvailable(self.flag()?),
            P::UserProperty => {
                V::UserProperty(self.text(), self.values.get(1).map_or("", String::as_str))
            }
            P::MaximumPacketSize => V::MaximumPacketSize(self.number()?),
            P::WildcardSubscriptionAvailable => V::WildcardSubscriptionAvailable(self.flag()?),
            P::SubscriptionIdentifierAvailable => V::SubscriptionIdentifierAvailable(self.flag()?),
            P::SharedSubscriptionAvailable => V::SharedSubscriptionAvailable(self.flag()?),
            P::TopicAlias => {
                let alias = TopicAlias::new(self.number()?);
                return alias
                    .map(Parsed::Alias)
                    .ok_or_else(|| fail("topic-alias: 0 is no topic alias"));
            }
        }))
    }
}

/// A list of typed properties and the binary data they need.
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

    /// The properties and, apart from them, the topic alias.
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
