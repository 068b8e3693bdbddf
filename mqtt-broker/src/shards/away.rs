//! Makes publishers wait for a shard that is away. What they publish for it is in the queue of its link, which is bounded like the queue of
//! a client. While that queue is more than half full, acknowledgements are withheld as for a connected client that takes nothing
//! (`pressure.rs`), for a longer time: another process may have to notice that the owner of the shard is gone, and to read its journal.
//! After that time the shard is given up until its link opens: the queue drops what it has no room for, and `RoutingLimits::answer` tells
//! this to the publishers that can be told.

use std::time::Duration;

use crate::broker::Broker;
use crate::config::Config;
use crate::hooks::{Hooks, Observation};
use crate::keys::SessionKey;
use crate::session::Session;

/// How many times as long as for a connected client publishers wait for a shard that is away.
const TIMES: u32 = 4;

impl<H: Hooks> Broker<H> {
    /// Returns how long publishers wait for a receiver that takes nothing.
    pub(crate) fn longest_wait(&self, key: SessionKey) -> Duration {
        let session = self.sessions.get(key);
        let is_away = |session: &Session| session.link.is_some() && session.connection.is_none();
        if session.is_some_and(is_away) {
            self.config.shard_wait()
        } else {
            self.config.slow_after()
        }
    }

    /// Reports that publishers begin to wait for the shard of a link without a connection.
    pub(crate) fn report_waits_for_shard(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if let Some((session, shard)) = session.and_then(|own| Some((own, own.link?))) {
            let messages = session.queue.len();
            self.hooks
                .observe(&Observation::PublishersWaitForShard { shard, messages });
        }
    }
}

impl Config {
    /// Returns how long publishers wait for a shard that is away.
    fn shard_wait(&self) -> Duration {
        match self.publisher_wait_ms {
            0 => self.slow_after().saturating_mul(TIMES),
            most => Duration::from_millis(u64::from(most)),
        }
    }
}
