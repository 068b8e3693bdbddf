//! SUBSCRIBE, UNSUBSCRIBE and what a server does not support.

use super::*;

fn subscribe(
    solo: &mut TestedMachine,
    filters: &[Subscription<'_>],
) -> Result<mqtt_session::Token, Refused> {
    let now = solo.now;
    let client = solo.machine.client();
    client.subscribe(filters, Properties::EMPTY, now)
}

/// The server answers the first SUBSCRIBE with these codes, which the event has too.
#[track_caller]
fn answer_first(
    solo: &mut TestedMachine,
    token: mqtt_session::Token,
    codes: &[ReasonCode],
    granted_more: bool,
) {
    solo.feed_packet(&Packet::SubAck(SubAck::new(PacketId::FIRST, codes)));
    let expected = OwnedEvent::Subscribed {
        token,
        codes: codes.to_vec(),
        granted_more,
    };
    assert_eq!(solo.learned(), [expected]);
}

/// Some brokers always grant QoS 1, even if QoS 0 was asked for. The client accepts and reports it.
#[test]
fn a_suback_that_grants_more_is_accepted_and_reported() {
    for version in [Version::V311, Version::V5] {
        let mut solo = default(Role::Client, version);
        let filter = TopicFilter::new("a").unwrap();
        let asked = [
            Subscription::new(filter, QoS::AtMostOnce),
            Subscription::new(filter, QoS::ExactlyOnce),
        ];
        let token = subscribe(&mut solo, &asked).unwrap();
        solo.sent();
        let codes = [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1];
        answer_first(&mut solo, token, &codes, true);
        // 3.1.1 [MQTT-3.8.4-5], 5 [MQTT-3.8.4-6]: but each filter must have its code.
        subscribe(&mut solo, &asked).unwrap();
        solo.feed_packet(&Packet::SubAck(SubAck::new(
            PacketId::new(2).unwrap(),
            &codes[..1],
        )));
        assert_eq!(
            closed(&mut solo),
            Some(Violation::CodeCount {
                codes: 1,
                filters: 2
            })
        );
    }
}

/// The event has the code of each filter. 3.1.1 has one code for a refused filter, 5 has several.
#[test]
fn each_filter_has_its_own_code() {
    let mut solo = default(Role::Client, Version::V311);
    let filter = TopicFilter::new("a").unwrap();
    let asked = [Subscription::new(filter, QoS::ExactlyOnce); 2];
    let token = subscribe(&mut solo, &asked).unwrap();
    let codes = [ReasonCode::UnspecifiedError, ReasonCode::GrantedQoS2];
    answer_first(&mut solo, token, &codes, false);
}

/// A request does not outlive its connection, because its answer cannot arrive any more.
#[test]
fn a_subscribe_that_is_not_answered_before_the_cut_ends_in_doubt() {
    let mut solo = default(Role::Client, Version::V5);
    let filter = [Subscription::new(
        TopicFilter::new("a").unwrap(),
        QoS::AtMostOnce,
    )];
    let token = subscribe(&mut solo, &filter).unwrap();
    solo.disconnect();
    assert_eq!(
        solo.learned(),
        [OwnedEvent::Ended {
            token,
            how: Ended::InDoubt
        }]
    );
    assert_eq!(subscribe(&mut solo, &filter), Err(Refused::Offline));
}

/// 5 [MQTT-3.2.2-11], [MQTT-3.2.2-14]: the client refuses what the server does not support according to its CONNACK.
#[test]
fn what_the_server_does_not_support_is_refused() {
    let mut solo = with(Role::Client, Version::V5, |_, opening| {
        opening.connack.extend([
            Property::MaximumQoS(true),
            Property::RetainAvailable(false),
            Property::WildcardSubscriptionAvailable(false),
            Property::SharedSubscriptionAvailable(false),
            Property::SubscriptionIdentifierAvailable(false),
        ]);
    });
    let refused = |reason| Err(Refused::NotSupportedByServer(reason));
    assert_eq!(
        solo.publish(QoS::ExactlyOnce, "x"),
        refused(ReasonCode::QoSNotSupported)
    );
    let now = solo.now;
    let client = solo.machine.client();
    let topic = TopicName::from_static("a");
    let retained = Outgoing {
        retain: true,
        ..Outgoing::new(topic, QoS::AtMostOnce, b"x")
    };
    assert_eq!(
        client.publish(&retained, now),
        refused(ReasonCode::RetainNotSupported)
    );
    let mut subscribe = |filter, properties| {
        let filters = [Subscription::new(
            TopicFilter::new(filter).unwrap(),
            QoS::AtMostOnce,
        )];
        client.subscribe(&filters, properties, now).map(|_| None)
    };
    assert_eq!(
        subscribe("a/#", Properties::EMPTY),
        refused(ReasonCode::WildcardSubscriptionsNotSupported)
    );
    assert_eq!(
        subscribe("$share/g/a", Properties::EMPTY),
        refused(ReasonCode::SharedSubscriptionsNotSupported)
    );
    let identifier = [Property::SubscriptionIdentifier(1)];
    let unsupported = refused(ReasonCode::SubscriptionIdentifiersNotSupported);
    assert_eq!(subscribe("a", Properties::from(&identifier)), unsupported);
    assert_eq!(subscribe("a", Properties::EMPTY), Ok(None));
}
