//! Topic aliases (5, section 3.3.2.3.4), those of both directions in one table. They die with the connection
//! (5 \[MQTT-3.3.2-7\]). Without the feature there are none: what there is to remember of them takes no room.

use mqtt_proto::wire::View;
#[cfg(not(feature = "aliases"))]
use mqtt_proto::{Publish, TopicName};

use crate::engine::Engine;
use crate::memory::Memory;
use crate::problem::Problem;
use crate::tune::{ALIASES, V5};

/// How far the table is in use.
#[cfg(feature = "aliases")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aliases {
    end: u32,
    /// How many were assigned to outgoing messages.
    assigned: u16,
}

#[cfg(not(feature = "aliases"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aliases;

impl Engine {
    /// Takes note of the topic alias of a PUBLISH, if it has one.
    #[inline]
    pub(crate) fn learn_alias(
        &mut self,
        m: &mut Memory<'_>,
        view: &View<'_>,
    ) -> Result<(), Problem> {
        if !V5 || view.alias == 0 {
            return Ok(());
        }
        // 5 [MQTT-3.3.2-9], [MQTT-3.3.2-11]
        // 5 [MQTT-3.3.2-10] and [MQTT-3.3.2-12]: each one up to the maximum is taken.
        if view.alias <= self.link.alias_maximum && ALIASES && self.knows_alias(m, view) {
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

    /// Which way the messages of an alias go.
    const IN: u8 = 0;
    const OUT: u8 = 1;

    /// A record: way, alias, length and topic. Records lie one after the other.
    #[derive(Clone, Copy)]
    struct Record<'m> {
        /// Where it begins.
        at: usize,
        way: u8,
        alias: u16,
        topic: &'m [u8],
    }

    /// Way, alias and length.
    const HEAD: usize = 5;

    /// The records of one direction in `end` bytes.
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
        /// Whether the alias of a PUBLISH stands for a topic, from now on for the one that the packet names.
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

        /// Adds a record; `false` without room for it.
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

        /// Gives an outgoing message the alias of its topic; the first topics on a connection get one. Where the peer knows it
        /// already, the topic stays away.
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
            if next <= self.link.auto_alias && self.append(m, OUT, next, topic) {
                self.link.aliases.assigned = next;
                publish.topic_alias = TopicAlias::new(next);
            }
        }

        /// What the alias of a message that came stands for.
        pub(crate) fn topic<'m>(
            &self,
            m: &'m Memory<'_>,
            publish: &Publish<'_>,
        ) -> Option<TopicName<'m>> {
            let wanted = publish.topic_alias?.get();
            let mut all = records(m.aliases(), self.link.aliases.end, IN);
            let record = all.find(|record| record.alias == wanted)?;
            // It was checked when it came.
            let view = View {
                topic: record.topic,
                ..View::default()
            };
            Some(view.topic_name())
        }
    }
}
