//! Keeps single shards away while the others serve: after a crash, or from the start.

use super::class;
use super::world::World;

/// How often a shard that is away comes back: once in this number of operations.
const RETURNS: usize = 40;

impl World {
    /// Keeps a shard away from the start, once in a few worlds, and more often where its queue is short: publishers wait for it then. The
    /// first client is not of that shard.
    pub(super) fn keep_one_away(&mut self) {
        let count = self.shards.all.len();
        if count < 2 {
            return;
        }
        let waits = self.expectations.short_queues && self.random.once_in(2);
        if !waits && !self.chance(class::CRASHES, 4) {
            return;
        }
        let away = (self.shards.of("c0") + 1 + self.random.below(count - 1)) % count;
        self.report.away += 1;
        self.shards.all[away].is_away = true;
        for other in 0..count {
            self.shards.miss(other, away, self.instant());
        }
    }

    /// Closes the links of a shard that has crashed and stays away. The others notice it at some time.
    pub(super) fn stays_away(&mut self, crashed: usize) {
        let now = self.instant();
        self.report.away += 1;
        self.trace_shard(crashed, "stays away");
        self.shards.all[crashed].is_away = true;
        for other in 0..self.shards.all.len() {
            self.shards.close_link(other, crashed, now);
            self.to_miss.push((other, crashed));
        }
        self.wake();
    }

    /// Lets shards notice that another one is away, and brings one back.
    pub(super) fn notice_away(&mut self) {
        self.notice_earlier(false);
        if !self.to_miss.is_empty() && self.random.once_in(4) {
            let at = self.random.below(self.to_miss.len());
            let (own, to) = self.to_miss.swap_remove(at);
            self.trace_shard(own, "misses another one");
            self.shards.miss(own, to, self.instant());
            self.wake();
        }
        let away = self.shards.all.iter().position(|shard| shard.is_away);
        if let Some(away) = away
            && self.random.once_in(RETURNS)
        {
            self.comes_back(away);
        }
    }

    pub(super) fn trace_shard(&self, shard: usize, what: &str) {
        if self.plan.trace {
            eprintln!("{} ms, {}: shard {shard} {what}", self.now, self.moment);
        }
    }

    /// Brings all shards back.
    pub(super) fn bring_all_back(&mut self) {
        while let Some(away) = self.shards.all.iter().position(|shard| shard.is_away) {
            self.comes_back(away);
        }
    }

    fn comes_back(&mut self, own: usize) {
        self.trace_shard(own, "comes back");
        self.start_again(own);
        self.join_others(own);
    }

    /// Opens the links of a process that has begun. It serves when it knows the shards that are not away.
    pub(super) fn join_others(&mut self, own: usize) {
        let now = self.instant();
        for (one, other) in std::mem::take(&mut self.to_miss) {
            if self.shards.all[other].is_away {
                self.shards.miss(one, other, now);
            }
        }
        let count = self.shards.all.len();
        for other in (0..count).filter(|other| *other != own) {
            if self.shards.all[other].is_away {
                self.shards.miss(own, other, now);
            } else {
                self.shards.open_link(own, other, now);
            }
        }
        self.wait_for_links();
        self.wake();
    }
}
