//! Checks the texts of errors: an error and each of its sources print different texts.

use std::error::Error as _;
use std::sync::Arc;

use mqtt_agent::proto::{
    DecodeError, EncodeError, PacketType, QoS, ReasonCode, Rule, TopicFilter, TopicName, Version,
};
use mqtt_agent::session::{Closed, Refused, Violation};
use mqtt_agent::{Error, Options, Outcome, Publication};

/// Returns the texts of an error and its sources.
fn chain(error: &Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    texts
}

#[test]
fn each_error_has_its_source_and_prints_no_text_twice() {
    let io = || Arc::new(std::io::Error::other("no route to host"));
    let topic = TopicName::new("a/#").unwrap_err();
    let filter = TopicFilter::new("a/#/b").unwrap_err();
    let too_large = DecodeError {
        version: Version::V5,
        packet: Some(PacketType::Publish),
        at: 1,
        rule: Rule::TooLarge { len: 9, max: 4 },
    };
    let encode = EncodeError::ReasonCode(ReasonCode::Success);
    let violation = Violation::Malformed(too_large);
    let rows = [
        (Error::Transport("cannot connect", io()), 2),
        (Error::EndOfStream, 1),
        (Error::TimedOut("the response"), 1),
        (Error::Closed(Closed::Violation(violation)), 1),
        (Error::Closed(Closed::Refused(ReasonCode::NotAuthorized)), 1),
        (Error::Refused(Refused::Full), 1),
        (Error::Refused(Refused::Encode(encode)), 1),
        (
            Error::SubscriptionRefused(vec![ReasonCode::NotAuthorized]),
            1,
        ),
        (Error::MessageRefused(ReasonCode::NoMatchingSubscribers), 1),
        (Error::NotDelivered(Outcome::InDoubt), 1),
        (Error::Stopped, 1),
        (Error::Panicked, 1),
        (Error::Url("h: the host is missing".to_owned()), 1),
        (Error::Options("a request needs MQTT 5".to_owned()), 1),
        (Error::Topic("topic \"a/#\"".to_owned(), topic), 2),
        (Error::Topic("topic filter \"a/#/b\"".to_owned(), filter), 2),
        (Error::Credentials(io()), 2),
        (Error::Authentication("a wrong proof".to_owned()), 1),
    ];
    for (error, texts) in rows {
        let chain = chain(&error);
        assert_eq!(chain.len(), texts, "{chain:?}");
        let all = chain.join(": ");
        for text in &chain {
            assert!(!text.is_empty(), "{error:?}");
            assert_eq!(all.matches(text.as_str()).count(), 1, "{all}");
        }
    }
}

#[test]
fn a_source_can_be_downcast() {
    let io = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let error = Error::Transport("cannot connect", Arc::new(io));
    let source = error.source().and_then(|source| source.downcast_ref());
    let kind = source.map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_topic_that_is_none_is_named_and_explained() {
    let publication = Publication::new("a/#", QoS::AtMostOnce, "");
    let error = publication.with_outgoing(|_| ()).unwrap_err();
    let texts = chain(&error);
    assert_eq!(texts[0], "topic \"a/#\"");
    assert!(texts[1].contains("wildcard"), "{texts:?}");
    let mut options = Options::new("h", 1);
    let error = options.subscribe("a/#/b", QoS::AtMostOnce).unwrap_err();
    assert_eq!(error.to_string(), "topic filter \"a/#/b\"");
    assert_eq!(chain(&error).len(), 2);
}
