//! Remembers which shards had a message for a shared subscription and no member for it, so that the message comes to none of them
//! again. A shard may have members and none that has the right to read the message, and the other shards do not know that.
//!
//! The shards are written behind the identifier of the shared subscription, as further subscription identifiers of the message. So
//! they go over links with it, and its records have them.

use mqtt_session::proto::TopicName;
use smallvec::SmallVec;

use super::{Links, MOST_SHARDS};
use crate::broker::Broker;
use crate::fanout::Target;
use crate::hooks::Hooks;
use crate::keys::GroupKey;
use crate::queue::Identifiers;

/// The shards that had a message; one bit for each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Visited(u64);

const _: () = assert!(MOST_SHARDS <= 64);

impl Visited {
    /// Reads the shards behind the first of the identifiers.
    pub(crate) fn of(identifiers: &[u32]) -> Self {
        Self::read(identifiers.iter().copied().skip(1))
    }

    pub(super) fn read(shards: impl Iterator<Item = u32>) -> Self {
        let bits = shards.filter_map(|identifier| {
            let shard = identifier.checked_sub(1)?;
            1_u64.checked_shl(shard)
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    fn has(self, shard: u8) -> bool {
        let bit = 1_u64.checked_shl(shard.into());
        bit.is_some_and(|bit| self.0 & bit != 0)
    }

    pub(super) fn with(self, shard: u8) -> Self {
        Self(self.0 | 1_u64.checked_shl(shard.into()).unwrap_or(0))
    }

    /// Returns the identifier of a subscription with the shards behind it. No identifier of MQTT is 0.
    pub(super) fn behind(self, first: &[u32]) -> SmallVec<[u32; 4]> {
        let shards = (0..MOST_SHARDS).filter(|shard| self.has(*shard));
        let shards = shards.map(|shard| u32::from(shard).saturating_add(1));
        first.iter().copied().take(1).chain(shards).collect()
    }
}

impl<H: Hooks> Broker<H> {
    /// Chooses a member as [`Broker::choose`] does, but none of the shards that had the message.
    pub(crate) fn choose_unvisited(
        &mut self,
        group: GroupKey,
        topic: TopicName<'_>,
        visited: Visited,
    ) -> Option<Target> {
        self.set_visited(visited);
        let target = self.choose(group, topic);
        self.set_visited(Visited::default());
        target
    }

    fn set_visited(&mut self, visited: Visited) {
        if let Some(links) = &mut self.links {
            links.visited = visited;
        }
    }

    /// Returns the identifiers for a member of a shared subscription: a link also gets the shards that had the message.
    pub(crate) fn member_identifiers(&self, target: &Target, visited: Visited) -> Identifiers {
        if self.is_link(target.subscriber.session) {
            Identifiers::new(&visited.behind(target.identifier()))
        } else {
            Identifiers::new(target.identifier())
        }
    }
}

impl Links {
    /// Returns whether the message for which a member is being chosen may not go to a shard.
    pub(crate) fn is_passed_over(&self, shard: u8) -> bool {
        self.only_own || self.visited.has(shard)
    }

    /// Adds this shard to those that had a message.
    pub(super) fn and_own(&self, visited: Visited) -> Visited {
        visited.with(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_as_they_were_written() {
        let all = [0, 1, 7, 62, 63];
        let visited = all
            .iter()
            .fold(Visited::default(), |all, shard| all.with(*shard));
        let identifiers = visited.behind(&[17]);
        assert_eq!(identifiers[..], [17, 1, 2, 8, 63, 64]);
        assert_eq!(Visited::of(&identifiers), visited);
        for shard in 0..MOST_SHARDS {
            assert_eq!(visited.has(shard), all.contains(&shard), "{shard}");
        }
        // Other identifiers are no shards.
        let others = [17, 0, 65, u32::MAX];
        assert_eq!(Visited::of(&others), Visited::default());
        assert_eq!(Visited::default().behind(&[17])[..], [17]);
    }
}
