//! Compares passwords, which takes long on purpose: comparisons wait in a bounded queue and run beside the broker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mqtt_broker::ConnectionId;
use tokio::time::Instant;

use crate::users::{Claim, Memory};

/// The waiting comparisons, and the number of running ones.
#[derive(Clone, Debug)]
pub(crate) struct PasswordChecks(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    /// The waiting comparisons by the source of their connections, with numbers that count up. No list is empty, and the newest
    /// comparison is the last.
    waiting: BTreeMap<u64, NumberedChecks>,
    count: usize,
    most: usize,
    /// How many comparisons were added.
    added: u64,
    /// The source that had the last turn.
    served: u64,
    running: usize,
    workers: usize,
    /// The memory of workers that have ended.
    spare: Vec<Memory>,
    comparisons: u64,
}

type NumberedChecks = VecDeque<(u64, Check)>;

/// A password to be compared.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) connection: ConnectionId,
    /// The source of the connection: see [`source`](crate::peer::source).
    pub(crate) source: u64,
    pub(crate) user: String,
    pub(crate) password: Vec<u8>,
    pub(crate) claim: Claim,
}

/// The result of [`PasswordChecks::add`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Added {
    /// The connections whose comparisons have lost their places: one, or more after the limit was lowered.
    pub(crate) displaced: Vec<ConnectionId>,
    /// Whether the caller has to start a worker: see [`PasswordChecks::work`].
    pub(crate) needs_worker: bool,
}

impl PasswordChecks {
    /// Makes a queue for `most` comparisons. One processor is left to the broker, and the others compare.
    pub(crate) fn new(most: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self(Arc::new(Mutex::new(Queue {
            waiting: BTreeMap::new(),
            count: 0,
            most,
            added: 0,
            served: 0,
            running: 0,
            workers: processors.saturating_sub(1).max(1),
            spare: Vec::new(),
            comparisons: 0,
        })))
    }

    pub(crate) fn set_most(&self, most: usize) {
        self.queue().most = most;
    }

    /// Adds a comparison. If the queue is full, the source with the most comparisons loses its oldest one: the clients of other
    /// addresses keep their places while one address floods the queue.
    pub(crate) fn add(&self, check: Check) -> Added {
        let mut queue = self.queue();
        queue.push(check);
        let mut displaced = Vec::new();
        while queue.count > queue.most
            && let Some(connection) = queue.displace()
        {
            displaced.push(connection);
        }
        let needs_worker = queue.running < queue.workers;
        queue.running += usize::from(needs_worker);
        Added {
            displaced,
            needs_worker,
        }
    }

    /// Removes the comparison of a connection that has ended.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        let mut queue = self.queue();
        queue.forget(connection);
    }

    /// Compares until no comparison waits, for one source after the other. The oldest comparison of a source is first, so that all
    /// have their turn. While the queue is more than half full, the newest is first, because its client is the least likely to have
    /// given up.
    pub(crate) fn work(
        &self,
        compare: impl Fn(&Check, &mut Memory) -> bool,
        tell: impl Fn(ConnectionId, bool),
    ) {
        let mut memory_of_hashes = self.queue().spare.pop().unwrap_or_default();
        while let Some(check) = self.next(&mut memory_of_hashes) {
            let Claim { proof, memory, .. } = &check.claim;
            // Another client of the same user may have proved the password while this one waited.
            let is_right = memory.knows(&check.user, proof, Instant::now()) || {
                self.queue().comparisons += 1;
                let is_right = compare(&check, &mut memory_of_hashes) && check.claim.is_known;
                if is_right {
                    memory.remember(&check.user, *proof, Instant::now());
                }
                is_right
            };
            tell(check.connection, is_right);
        }
    }

    /// Returns the next comparison. If there is none, the calling worker no longer counts as running, and gives its memory to the next
    /// one.
    fn next(&self, memory: &mut Memory) -> Option<Check> {
        let mut queue = self.queue();
        let next = queue.pop();
        if next.is_none() {
            queue.running -= 1;
            queue.spare.push(std::mem::take(memory));
        }
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The value is valid at any time, even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, check: Check) {
        let list = self.waiting.entry(check.source).or_default();
        list.push_back((self.added, check));
        self.added += 1;
        self.count += 1;
    }

    /// Removes the oldest comparison of the source with the most comparisons. Returns its connection.
    fn displace(&mut self) -> Option<ConnectionId> {
        let oldest = |list: &NumberedChecks| list.front().map(|(number, _)| *number);
        let lists = self.waiting.iter();
        let (source, _) = lists.max_by_key(|(_, list)| (list.len(), Reverse(oldest(list))))?;
        let check = self.take(*source, NumberedChecks::pop_front)?;
        Some(check.connection)
    }

    /// Removes the comparison that is next.
    fn pop(&mut self) -> Option<Check> {
        let later = (Bound::Excluded(self.served), Bound::Unbounded);
        let next = self.waiting.range(later).next();
        let (source, _) = next.or_else(|| self.waiting.first_key_value())?;
        self.served = *source;
        let is_crowded = self.count > self.most / 2;
        let end = match is_crowded {
            true => NumberedChecks::pop_back,
            false => NumberedChecks::pop_front,
        };
        self.take(self.served, end)
    }

    fn take(
        &mut self,
        source: u64,
        end: fn(&mut NumberedChecks) -> Option<(u64, Check)>,
    ) -> Option<Check> {
        let list = self.waiting.get_mut(&source)?;
        let (_, check) = end(list)?;
        if list.is_empty() {
            self.waiting.remove(&source);
        }
        self.count -= 1;
        Some(check)
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.waiting.retain(|_, list| {
            list.retain(|(_, check)| check.connection != connection);
            !list.is_empty()
        });
        self.count = self.waiting.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use mqtt_broker::{Broker, Config, Hooks};
    use mqtt_session::Instant as BrokerInstant;

    use super::*;
    use crate::Users;

    struct Open;

    impl Hooks for Open {
        fn unguessable(&mut self) -> u128 {
            1
        }
    }

    /// Returns names of connections of a broker.
    fn connections(count: usize) -> Vec<ConnectionId> {
        let now = BrokerInstant::from_millis(0);
        let mut broker = Broker::new(Config::default(), Open, now);
        (0..count).map(|_| broker.open(now).unwrap()).collect()
    }

    /// The passwords of numbered users.
    struct LogIns {
        checks: PasswordChecks,
        users: Users,
    }

    impl LogIns {
        fn new(queue: usize, users: usize) -> Self {
            Self {
                checks: PasswordChecks::new(queue),
                users: Users::numbered(users),
            }
        }

        /// Logs a client in. Returns `None` if the password is known without a comparison.
        fn add(
            &self,
            source: u64,
            connection: ConnectionId,
            (user, password): (&str, &str),
        ) -> Option<Added> {
            let claim = self.users.claim(user, password.as_bytes()).unwrap();
            if claim.memory.knows(user, &claim.proof, Instant::now()) {
                return None;
            }
            Some(self.checks.add(Check {
                connection,
                source,
                user: user.to_owned(),
                password: password.into(),
                claim,
            }))
        }

        /// Does all comparisons. Returns the connections in their order, and whether the password was right.
        fn work(&self) -> Vec<(ConnectionId, bool)> {
            let told = RefCell::new(Vec::new());
            let tell = |connection, is_right| told.borrow_mut().push((connection, is_right));
            self.checks
                .work(|check, _| check.password == b"secret", tell);
            told.take()
        }

        fn comparisons(&self) -> u64 {
            self.checks.queue().comparisons
        }
    }

    #[test]
    fn honest_clients_come_back_without_a_comparison_while_an_attacker_fills_the_queue() {
        const HONEST: usize = 1_000;
        const QUEUE: usize = 100;
        let log_ins = LogIns::new(QUEUE, HONEST);
        let connections = connections(HONEST + 1_000);
        let (honest, attackers) = connections.split_at(HONEST);
        let names: Vec<String> = (0..HONEST).map(|n| format!("user-{n}")).collect();
        for (name, connection) in names.iter().zip(honest) {
            log_ins.add(1, *connection, (name, "secret"));
            assert_eq!(log_ins.work(), [(*connection, true)]);
        }
        for (n, connection) in attackers.iter().enumerate() {
            let added = log_ins.add(1, *connection, ("user-0", "guess")).unwrap();
            let displaced = n.checked_sub(QUEUE).map(|n| attackers[n]);
            let displaced = Vec::from_iter(displaced);
            assert_eq!((added.displaced, added.needs_worker), (displaced, n == 0));
        }
        for (name, connection) in names.iter().zip(honest) {
            assert_eq!(log_ins.add(1, *connection, (name, "secret")), None);
        }
        assert_eq!(log_ins.work().len(), QUEUE);
        assert_eq!(log_ins.comparisons(), (HONEST + QUEUE) as u64);
    }

    #[test]
    fn a_thousand_clients_of_one_user_are_one_comparison() {
        let log_ins = LogIns::new(1_000, 1);
        for connection in connections(1_000) {
            log_ins.add(1, connection, ("user-0", "secret"));
        }
        let told = log_ins.work();
        assert!(told.iter().all(|(_, is_right)| *is_right));
        assert_eq!((log_ins.comparisons(), told.len()), (1, 1_000));
    }

    /// One worker after the other: they share one memory.
    #[test]
    fn workers_use_the_memory_of_those_before_them() {
        let log_ins = LogIns::new(10, 1);
        for connection in connections(5) {
            log_ins.add(1, connection, ("user-0", "wrong"));
            log_ins.work();
            assert_eq!(log_ins.checks.queue().spare.len(), 1);
        }
    }

    /// Returns the indexes of five clients in the order of their comparisons, in a queue for `most`. The third is gone.
    fn order(most: usize) -> Vec<usize> {
        let log_ins = LogIns::new(most, 1);
        let connections = connections(5);
        for connection in &connections {
            log_ins.add(1, *connection, ("user-0", "wrong"));
        }
        log_ins.checks.forget(connections[2]);
        let told = log_ins.work();
        let place = |(connection, _)| connections.iter().position(|own| *own == connection);
        told.into_iter().filter_map(place).collect()
    }

    #[test]
    fn the_newest_is_first_in_a_full_queue_and_the_oldest_in_another() {
        assert_eq!(order(10), [0, 1, 3, 4]);
        assert_eq!(order(5), [4, 3, 0, 1]);
    }

    /// The attacker has a place of its own in the queue, not those of other addresses.
    #[test]
    fn an_address_that_floods_the_queue_displaces_only_its_own() {
        let log_ins = LogIns::new(10, 2);
        let connections = connections(100);
        let (honest, attackers) = connections.split_at(2);
        let guess = |connection: &ConnectionId| {
            log_ins.add(5, *connection, ("user-0", "guess")).unwrap();
        };
        attackers[..50].iter().for_each(guess);
        log_ins.add(4, honest[0], ("user-0", "secret"));
        log_ins.add(6, honest[1], ("user-1", "secret"));
        attackers[50..].iter().for_each(guess);
        let told = log_ins.work();
        assert_eq!(told.len(), 10);
        for honest in honest {
            let place = told.iter().position(|told| *told == (*honest, true));
            assert!(place.is_some_and(|place| place < 3), "{place:?}");
        }
    }

    /// Many addresses have one comparison each: the one that has waited longest makes room.
    #[test]
    fn the_oldest_of_many_addresses_is_displaced() {
        let log_ins = LogIns::new(2, 1);
        let connections = connections(3);
        let displaced = [7, 9, 8]
            .into_iter()
            .zip(&connections)
            .map(|(source, own)| {
                let added = log_ins.add(source, *own, ("user-0", "wrong")).unwrap();
                added.displaced
            });
        assert_eq!(
            displaced.collect::<Vec<_>>(),
            [vec![], vec![], vec![connections[0]]]
        );
        log_ins.checks.set_most(1);
        let added = log_ins.add(7, connections[0], ("user-0", "wrong"));
        assert_eq!(added.unwrap().displaced, connections[1..]);
    }

    #[test]
    fn an_unknown_user_is_refused_even_with_the_password_of_the_hash() {
        let log_ins = LogIns::new(10, 1);
        let connection = connections(1)[0];
        for _ in 0..2 {
            log_ins.add(1, connection, ("nobody", "secret"));
            assert_eq!(log_ins.work(), [(connection, false)]);
        }
    }
}
