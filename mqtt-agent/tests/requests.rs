//! Checks requests packet by packet (5).

use bytes::BytesMut;
use mqtt_agent::proto::{QoS, TopicName, Version};
use mqtt_agent::session::{Instant, Outgoing};
use mqtt_agent::{Agent, AgentEvent, Error, NextDial, Options};

const NOW: Instant = Instant::from_millis(0);

fn receive(agent: &mut Agent, bytes: &[u8]) {
    agent.receive(&mut BytesMut::from(bytes), NOW).unwrap();
}

/// The requests that were sent with the SUBSCRIBE to the response topic end when the server refuses it. The next request asks the
/// server again.
#[test]
fn a_refused_response_topic_ends_the_requests_that_wait() {
    let mut options = Options::new("broker", 1883);
    (options.version, options.client_id) = (Version::V5, "asker".into());
    let mut agent = Agent::new(options);
    assert_eq!(agent.next_dial(NOW), NextDial::Now);
    agent.opened(NOW).unwrap();
    agent.sent(usize::MAX);
    receive(&mut agent, b"\x20\x03\0\0\0");
    let message = Outgoing::new(TopicName::from_static("a"), QoS::AtMostOnce, b"x");
    for round in 1..=2 {
        let asked = [(); 2].map(|()| agent.request(&message, NOW).unwrap());
        let subscribe = [0x82, 20, 0, round];
        assert_eq!(agent.outgoing()[..4], subscribe, "{:?}", agent.outgoing());
        agent.sent(usize::MAX);
        receive(&mut agent, &[0x90, 4, 0, round, 0, 0x87]);
        let ended: Vec<_> = std::iter::from_fn(|| agent.next_event())
            .filter_map(|event| match event {
                AgentEvent::Response(id, Err(Error::SubscriptionRefused(_))) => Some(id),
                _ => None,
            })
            .collect();
        assert_eq!(ended, asked);
    }
}
