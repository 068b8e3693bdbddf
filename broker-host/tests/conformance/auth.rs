//! Scenarios of enhanced authentication: sections 3.15 and 4.12 of MQTT 5.

use mqtt_proto::{Auth, Connect, Packet, Properties, Property, ReasonCode, Version};

use crate::net::{Broker, Client, comes};

const METHOD: Property<'static> = Property::AuthenticationMethod("question");

fn begin(broker: &Broker, version: Version, method: Property<'_>) -> Client {
    let mut client = Client::open(broker, version);
    client.send(&Packet::Connect(Connect {
        properties: Properties::from(&[method]),
        ..Connect::new(version, "pump")
    }));
    client
}

fn say(client: &mut Client, reason: ReasonCode, properties: &[Property<'_>]) {
    client.send(&Packet::Auth(Auth {
        reason,
        properties: Properties::from(properties),
    }));
}

fn is_asked(client: &mut Client) {
    client.next(|packet| match packet {
        Packet::Auth(auth) => {
            assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
            assert_eq!(auth.properties.authentication_method(), Some("question"));
            assert_eq!(auth.properties.authentication_data(), Some(&b"who?"[..]));
        }
        other => panic!("came {other:?}"),
    });
}

fn authenticated(broker: &Broker, version: Version) -> Client {
    let mut client = begin(broker, version, METHOD);
    is_asked(&mut client);
    let me = [METHOD, Property::AuthenticationData(b"me")];
    say(&mut client, ReasonCode::ContinueAuthentication, &me);
    client.next(|packet| match packet {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.reason, ReasonCode::Success);
            assert_eq!(connack.properties.authentication_method(), Some("question"));
            assert_eq!(
                connack.properties.authentication_data(),
                Some(&b"welcome"[..])
            );
        }
        other => panic!("came {other:?}"),
    });
    client
}

fn is_refused(mut client: Client, reason: ReasonCode) {
    comes!(client, Packet::ConnAck(connack) if connack.reason == reason && !connack.session_present);
    client.closed_silently();
}

pub(crate) fn a_method_leads_to_connack(version: Version) {
    let broker = Broker::start();
    authenticated(&broker, version).nothing();
}

pub(crate) fn an_unknown_method_is_refused(version: Version) {
    let broker = Broker::start();
    let client = begin(
        &broker,
        version,
        Property::AuthenticationMethod("unheard of"),
    );
    is_refused(client, ReasonCode::BadAuthenticationMethod);
}

pub(crate) fn a_wrong_answer_is_refused(version: Version) {
    let broker = Broker::start();
    let mut client = begin(&broker, version, METHOD);
    is_asked(&mut client);
    let wrong = [METHOD, Property::AuthenticationData(b"somebody")];
    say(&mut client, ReasonCode::ContinueAuthentication, &wrong);
    is_refused(client, ReasonCode::NotAuthorized);
}

pub(crate) fn another_method_in_auth_is_an_error(version: Version) {
    let broker = Broker::start();
    let mut client = begin(&broker, version, METHOD);
    is_asked(&mut client);
    let other = [Property::AuthenticationMethod("other")];
    say(&mut client, ReasonCode::ContinueAuthentication, &other);
    is_refused(client, ReasonCode::ProtocolError);
}

pub(crate) fn without_method_there_is_no_auth(version: Version) {
    let broker = Broker::start();
    let mut client = Client::open(&broker, version);
    client.send(&Packet::Connect(Connect::new(version, "pump")));
    client.next(|packet| match packet {
        Packet::ConnAck(connack) => assert_eq!(connack.properties.authentication_method(), None),
        other => panic!("came {other:?}"),
    });
    say(&mut client, ReasonCode::ReAuthenticate, &[METHOD]);
    assert_eq!(client.closed(), Some(ReasonCode::ProtocolError));
}

pub(crate) fn a_client_authenticates_again(version: Version) {
    let broker = Broker::start();
    let mut client = authenticated(&broker, version);
    say(&mut client, ReasonCode::ReAuthenticate, &[METHOD]);
    is_asked(&mut client);
    let me = [METHOD, Property::AuthenticationData(b"me")];
    say(&mut client, ReasonCode::ContinueAuthentication, &me);
    client.next(|packet| match packet {
        Packet::Auth(auth) => {
            assert_eq!(auth.reason, ReasonCode::Success);
            assert_eq!(auth.properties.authentication_method(), Some("question"));
        }
        other => panic!("came {other:?}"),
    });
    client.nothing();
    // Another method is not accepted.
    say(
        &mut client,
        ReasonCode::ReAuthenticate,
        &[Property::AuthenticationMethod("other")],
    );
    assert_eq!(client.closed(), Some(ReasonCode::ProtocolError));
}

pub(crate) fn failing_again_ends_the_connection(version: Version) {
    let broker = Broker::start();
    let mut client = authenticated(&broker, version);
    let wrong = [METHOD, Property::AuthenticationData(b"somebody")];
    say(&mut client, ReasonCode::ReAuthenticate, &wrong);
    assert_eq!(client.closed(), Some(ReasonCode::NotAuthorized));
}
