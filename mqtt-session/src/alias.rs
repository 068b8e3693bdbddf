//! Topic aliases (5, section 3.3.2.3.4), one table for each direction. They die with the connection
//! (5 \[MQTT-3.3.2-7\]).

use mqtt_proto::{TopicAlias, TopicName};

use crate::bytes::{copy, move_down};
use crate::outbox::to_usize;
use crate::storage::Memory;

/// Records of alias, length and topic, one after the other.
pub(crate) struct Aliases<M> {
    memory: M,
    end: u32,
    count: u16,
}

impl<M: Memory<u8>> Aliases<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self {
            memory,
            end: 0,
            count: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.end, self.count) = (0, 0);
    }

    fn records(&self) -> impl Iterator<Item = (usize, u16, &[u8])> {
        let all = self
            .memory
            .items()
            .get(..to_usize(self.end))
            .unwrap_or_default();
        let mut at = 0_usize;
        core::iter::from_fn(move || {
            let rest = all.get(at..)?;
            let (&[a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_be_bytes([c, d]));
            let record = (at, u16::from_be_bytes([a, b]), rest.get(..len)?);
            at = at.saturating_add(len).saturating_add(4);
            Some(record)
        })
    }

    /// The topic an alias stands for.
    pub(crate) fn topic(&self, alias: TopicAlias) -> Option<TopicName<'_>> {
        let (_, _, topic) = self
            .records()
            .find(|(_, number, _)| *number == alias.get())?;
        TopicName::from_bytes(topic).ok()
    }

    /// From now on `alias` stands for `topic`. `false` without room for it.
    pub(crate) fn set(&mut self, alias: TopicAlias, topic: TopicName<'_>) -> bool {
        let known = self
            .records()
            .find(|(_, number, _)| *number == alias.get())
            .map(|(at, _, old)| (at, old.len(), old == topic.as_bytes()));
        match known {
            Some((_, _, true)) => return true,
            Some((at, len, false)) => {
                let record = len.saturating_add(4);
                let end = to_usize(self.end);
                let next = at.saturating_add(record);
                move_down(self.memory.items_mut(), next, end.saturating_sub(next), at);
                self.end = self.end.saturating_sub(crate::outbox::to_u32(record));
                self.count = self.count.saturating_sub(1);
            }
            None => {}
        }
        self.append(alias, topic)
    }

    fn append(&mut self, alias: TopicAlias, topic: TopicName<'_>) -> bool {
        let start = to_usize(self.end);
        let len = topic.as_bytes().len();
        let end = start.saturating_add(len).saturating_add(4);
        if end > self.memory.items().len() && !self.memory.grow(end) {
            return false;
        }
        let Some(record) = self.memory.items_mut().get_mut(start..end) else {
            return false;
        };
        let (Some((head, body)), Ok(len)) =
            (record.split_first_chunk_mut::<4>(), u16::try_from(len))
        else {
            return false;
        };
        let ([a, b], [c, d]) = (alias.get().to_be_bytes(), len.to_be_bytes());
        *head = [a, b, c, d];
        copy(body, topic.as_bytes());
        self.end = crate::outbox::to_u32(end);
        self.count = self.count.saturating_add(1);
        true
    }

    /// The alias for an outgoing topic, and whether the peer knows it already. The first `most` topics get one.
    pub(crate) fn assign(&mut self, topic: TopicName<'_>, most: u16) -> Option<(TopicAlias, bool)> {
        if most == 0 {
            return None;
        }
        if let Some((_, number, _)) = self
            .records()
            .find(|(_, _, known)| *known == topic.as_bytes())
        {
            return TopicAlias::new(number).map(|alias| (alias, true));
        }
        if self.count >= most {
            return None;
        }
        let alias = TopicAlias::new(self.count.saturating_add(1))?;
        self.append(alias, topic).then_some((alias, false))
    }
}
