//! Topic aliases (5, section 3.3.2.3.4). One table has those of both directions. It ends with the connection
//! (5 \[MQTT-3.3.2-7\]). Without the feature there are no aliases.

use mqtt_proto::wire::View;
#[cfg(not(feature = "aliases"))]
use mqtt_proto::{Publish, TopicName};

use crate::engine::Engine;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::tune::{ALIASES, V5};

impl Engine {
    /// Stores the topic alias of an incoming PUBLISH, if it has one.
    pub(crate) fn learn_alias(
        &mut self,
        m: &mut Memory<'_>,
        view: &View<'_>,
    ) -> Result<(), Problem> {
        if !V5 || view.alias == 0 {
            return Ok(());
        }
        // 5 [MQTT-3.3.2-9], [MQTT-3.3.2-11]
        // 5 [MQTT-3.3.2-10] and [MQTT-3.3.2-12]: every alias up to the maximum is accepted.
        if view.alias <= self.link.ours.aliases && ALIASES && self.knows_alias(m, view) {
            return Ok(());
        }
        Err(Problem::TopicAlias)
    }
}

#[cfg(not(feature = "aliases"))]
impl Engine {
    #[allow(clippy::unused_self, reason = "as where there are some")]
    fn knows_alias(&self, _: &mut Memory<'_>, _: &View<'_>) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "as where there are some")]
    pub(crate) fn assign_alias(&mut self, _: &mut Memory<'_>, _: &mut Publish<'_>) {}

    #[allow(clippy::unused_self, reason = "as where there are some")]
    pub(crate) fn topic<'m>(&self, _: &'m Memory<'_>, _: &Publish<'_>) -> Option<TopicName<'m>> {
        None
    }
}

#[cfg(feature = "aliases")]
mod table {
    use mqtt_proto::num::{to_u16, to_u32, to_usize};
    use mqtt_proto::wire::{Reader, View, Writer};
    use mqtt_proto::{Publish, TopicAlias, TopicName};

    use crate::bytes::move_down;
    use crate::engine::Engine;
    use crate::memory::Memory;

    /// The direction of an alias: of incoming or of outgoing messages.
    const IN: u8 = 0;
    const OUT: u8 = 1;

    /// A record of the table: direction, alias, length and topic. One record follows the other.
    #[derive(Clone, Copy)]
    struct Record<'m> {
        /// Where the record begins in the table.
        at: usize,
        way: u8,
        alias: u16,
        topic: &'m [u8],
    }

    /// The length of a record without its topic: direction, alias and length.
    const HEAD: usize = 5;

    /// Returns the records of one direction in the first `end` bytes.
    fn records(bytes: &[u8], end: u32, way: u8) -> impl Iterator<Item = Record<'_>> {
        let all = bytes.get(..to_usize(end)).unwrap_or_default();
        let mut rest = Reader::new(all);
        let all = core::iter::from_fn(move || {
            let at = all.len().wrapping_sub(rest.rest.len());
            let more = !rest.rest.is_empty();
            more.then(|| Record {
                at,
                way: rest.u8(),
                alias: rest.u16(),
                topic: rest.binary(),
            })
        });
        all.filter(move |record| record.way == way)
    }

    impl Engine {
        /// Returns whether a topic is assigned to the alias of an incoming PUBLISH. If the packet has a topic, it is assigned
        /// first.
        pub(super) fn knows_alias(&mut self, m: &mut Memory<'_>, view: &View<'_>) -> bool {
            let end = self.link.aliases.end;
            let known = records(m.aliases(), end, IN)
                .find(|record| record.alias == view.alias)
                .map(|record| (record.at, record.topic.len(), record.topic == view.topic));
            if view.topic.is_empty() {
                return known.is_some();
            }
            if let Some((at, len, same)) = known {
                if same {
                    return true;
                }
                let next = at.wrapping_add(HEAD).wrapping_add(len);
                move_down(m.aliases_mut(0), next..to_usize(end), at);
                self.link.aliases.end = end.wrapping_sub(to_u32(next.wrapping_sub(at)));
            }
            self.append(m, IN, view.alias, view.topic)
        }

        /// Adds a record. Returns `false` if it has no room.
        fn append(&mut self, m: &mut Memory<'_>, way: u8, alias: u16, topic: &[u8]) -> bool {
            let start = to_usize(self.link.aliases.end);
            let end = start.wrapping_add(HEAD).wrapping_add(topic.len());
            let room = m.aliases_mut(end).get_mut(start..);
            let mut record = Writer::new(room.unwrap_or_default());
            record.u8(way);
            record.u16(alias);
            record.u16(to_u16(topic.len()));
            record.bytes(topic);
            let fits = record.fits();
            if fits {
                self.link.aliases.end = to_u32(end);
            }
            fits
        }

        /// Gives an outgoing message the alias of its topic. The first topics on a connection get one. If the peer knows it
        /// already, the packet has no topic.
        pub(crate) fn assign_alias(&mut self, m: &mut Memory<'_>, publish: &mut Publish<'_>) {
            let topic = publish.topic.as_bytes();
            let aliases = self.link.aliases;
            let known = records(m.aliases(), aliases.end, OUT)
                .find(|record| record.topic == topic)
                .map(|record| record.alias);
            if let Some(alias) = known {
                publish.topic_alias = TopicAlias::new(alias);
                publish.topic = TopicName::NONE;
                return;
            }
            let next = aliases.assigned.saturating_add(1);
            if next <= self.link.peers.aliases && self.append(m, OUT, next, topic) {
                self.link.aliases.assigned = next;
                publish.topic_alias = TopicAlias::new(next);
            }
        }

        /// Returns the topic of an incoming message's alias.
        pub(crate) fn topic<'m>(
            &self,
            m: &'m Memory<'_>,
            publish: &Publish<'_>,
        ) -> Option<TopicName<'m>> {
            let wanted = publish.topic_alias?.get();
            let mut all = records(m.aliases(), self.link.aliases.end, IN);
            let record = all.find(|record| record.alias == wanted)?;
            // The topic was checked when it arrived.
            let view = View {
                topic: record.topic,
                ..View::default()
            };
            Some(view.topic_name())
        }
    }
}
