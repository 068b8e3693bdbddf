//! Counts the slots that are looked at, so that tests see whether the work for a packet depends on how many others wait.

/// Returns a slot that is looked at. Tests count it.
pub(crate) fn looked<T>(slot: &T) -> &T {
    #[cfg(test)]
    LOOKED.set(LOOKED.get().saturating_add(1));
    slot
}

#[cfg(test)]
std::thread_local! {
    static LOOKED: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

#[cfg(test)]
#[cfg(all(feature = "alloc", feature = "server"))]
mod tests {
    use alloc::vec::Vec;

    use mqtt_proto::{ConnAck, Connect, Encode, QoS, TopicName, Version};

    use super::LOOKED;
    use crate::tune::FAST;
    use crate::{Config, Heap, Instant, Outgoing, Server, Step};

    // On a device each slot is looked at, so these tests are for hosts.
    const NOW: Instant = Instant::from_millis(0);
    const MANY: u16 = if cfg!(miri) { 300 } else { u16::MAX };

    /// Returns a server whose client has connected.
    fn connected() -> Server<'static> {
        let mut config = Config::default();
        (config.window, config.window_qos2) = (u16::MAX, u16::MAX);
        config.outgoing_limit = 64 << 20;
        let mut server = Server::new(config, Heap);
        server.opened(NOW);
        let mut bytes = [0; 32];
        let len = Connect::new(Version::V311, "c").encode(Version::V311, &mut bytes);
        feed(&mut server, &bytes[..len.unwrap()]);
        server.accept(&ConnAck::default(), NOW).unwrap();
        server
    }

    fn feed(server: &mut Server<'_>, packet: &[u8]) {
        let step = server.receive(packet, NOW);
        let Ok(Step::Packet { consumed, .. }) = step else {
            panic!("{step:?}")
        };
        assert_eq!(consumed, packet.len());
    }

    /// A window of 65,535 messages is acknowledged in their order, in reverse, and each seventh first. A search takes the logarithm of
    /// their number. Slots are moved to the front so seldom that it is two for each acknowledgement, but many at once.
    #[test]
    fn acknowledgements_in_any_order_are_as_much_work() {
        if !FAST {
            return;
        }
        let all: Vec<u16> = (1..=MANY).collect();
        let mut sevenths = all.clone();
        sevenths.sort_by_key(|id| id % 7);
        for ids in [all.clone(), all.into_iter().rev().collect(), sevenths] {
            let mut server = connected();
            let topic = TopicName::from_static("a");
            for _ in &ids {
                let message = Outgoing::new(topic, QoS::AtLeastOnce, b"x");
                server.publish(&message).unwrap();
            }
            server.sent(usize::MAX);
            LOOKED.set(0);
            let mut most = usize::from(MANY);
            for id in &ids {
                let [high, low] = id.to_be_bytes();
                feed(&mut server, &[0x40, 2, high, low]);
                most += 24;
                assert!(LOOKED.get() <= most, "after the acknowledgement of {id}");
            }
            assert_eq!(server.pending(), 0);
        }
    }

    /// A client never releases its QoS 2 messages: the next one is no more work than the 17th. Up to 16 are compared one by one.
    #[test]
    fn messages_that_are_not_released_are_not_searched() {
        if !FAST {
            return;
        }
        let mut server = connected();
        for id in 1..=MANY {
            let [high, low] = id.to_be_bytes();
            let before = LOOKED.get();
            feed(&mut server, &[0x34, 6, 0, 1, b'a', high, low, b'x']);
            server.sent(usize::MAX);
            assert!(LOOKED.get() <= before + 17, "before message {id}");
        }
    }
}
