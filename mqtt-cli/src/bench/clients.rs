//! Connects the clients of a run.

use std::time::{Duration, Instant};

use mqtt_tokio::{Handle, Options, QoS0Overflow};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Bench;
use super::naming::{Named, Names, Role};
use crate::failure::{Failure, fail};
use crate::link::{self, Dial, local_addresses};

/// How many connections may be opened at the same time.
const AT_ONCE: usize = 256;
/// How many file descriptors are not connections.
const OTHER_FILES: u64 = 32;

/// The settings that all clients share.
#[derive(Debug)]
pub(super) struct Clients {
    options: Options,
    /// The dials, one for each source address.
    dials: Vec<Dial>,
    pub(super) names: Names,
    publishers: u32,
    rate: u32,
}

/// The end of an attempt to connect.
pub(super) struct Attempt {
    pub(super) named: Named,
    pub(super) took: Duration,
    pub(super) result: Result<Handle, Failure>,
}

impl Clients {
    pub(super) fn new(bench: &Bench) -> Result<Self, Failure> {
        let names = Names::new(
            bench.id.as_deref(),
            bench.username.as_deref(),
            bench.topic.as_deref(),
        )?;
        let mut options = Options::new(bench.host.clone(), bench.port.unwrap_or(1883));
        options.version = bench.protocol_version;
        options.password = bench.password.clone().map(String::into_bytes);
        options.keep_alive = bench.keepalive;
        options.clean_start = !bench.disable_clean_session;
        let expiry = if bench.disable_clean_session {
            u32::MAX
        } else {
            0
        };
        options.session_expiry = bench.session_expiry_interval.unwrap_or(expiry);
        options.back_off.attempts = Some(bench.retries.saturating_add(1));
        // Messages that cannot be counted at once must wait and not be dropped.
        options.qos0_overflow = QoS0Overflow::PauseReading;
        let layers = bench.tls.apply(&mut options, bench.port)?;
        let mut dials = Vec::new();
        for from in &bench.from {
            let mut layers = layers.clone();
            layers.sockets.local_addresses = local_addresses(from)?;
            dials.push(Dial::new(&options, layers));
        }
        if dials.is_empty() {
            dials.push(Dial::new(&options, layers));
        }
        let total = match bench.connect {
            Some(count) => count,
            None => bench.publishers + bench.subscribers,
        };
        enough_files(u64::from(total) + OTHER_FILES)?;
        Ok(Self {
            options,
            dials,
            names,
            publishers: bench.publishers,
            rate: bench.connect_rate,
        })
    }

    pub(super) fn named(&self, role: Role, n: u32) -> Named {
        let before = match role {
            Role::Subscriber => self.publishers,
            Role::Publisher | Role::Idle => 0,
        };
        self.names.of(role, n, before)
    }

    /// Connects `count` clients at the rate of the command line, and passes the end of each attempt to `each`.
    pub(super) async fn connect(&self, role: Role, count: u32, mut each: impl FnMut(Attempt)) {
        let mut pace = pace(self.rate);
        let mut attempts = JoinSet::new();
        let mut next = 0;
        while next < count || !attempts.is_empty() {
            let may_open = next < count && attempts.len() < AT_ONCE;
            tokio::select! {
                biased;
                Some(done) = attempts.join_next() => {
                    if let Ok(attempt) = done {
                        each(attempt);
                    }
                }
                () = due(&mut pace), if may_open => {
                    attempts.spawn_local(self.attempt(self.named(role, next)));
                    next += 1;
                }
            }
        }
    }

    fn attempt(&self, named: Named) -> impl Future<Output = Attempt> + use<> {
        let mut options = self.options.clone();
        options.client_id.clone_from(&named.id);
        options.user_name.clone_from(&named.user);
        let version = options.version;
        let turn = usize::try_from(named.number).unwrap_or(0) % self.dials.len();
        let dial = self.dials.get(turn).cloned();
        async move {
            let start = Instant::now();
            let result = match dial {
                Some(dial) => first(link::start(options, dial, false)).await,
                None => Err(mqtt_tokio::Error::Stopped),
            };
            Attempt {
                named,
                took: start.elapsed(),
                result: result.map_err(|error| Failure::connection(&error, version)),
            }
        }
    }
}

/// Waits for the first connection; the client tries as often as its options say.
async fn first(handle: Handle) -> Result<Handle, mqtt_tokio::Error> {
    let mut events = handle.events();
    while let Some(event) = events.next().await {
        match event {
            mqtt_tokio::ConnectionEvent::Connected(_) => return Ok(handle),
            mqtt_tokio::ConnectionEvent::Stopped(error) => return Err(error),
            _ => {}
        }
    }
    Err(mqtt_tokio::Error::Stopped)
}

/// Returns an interval for this many ticks per second; `None` for 0, which is no limit.
pub(super) fn pace(rate: u32) -> Option<Interval> {
    (rate > 0).then(|| {
        let mut pace = interval(Duration::from_secs(1) / rate);
        // After a delay the ticks come in a burst, so that the average rate is right.
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        pace
    })
}

/// Waits for the next tick, if there is a pace.
pub(super) async fn due(pace: &mut Option<Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

/// Fails before the first connection if the process may not open this many files.
fn enough_files(needed: u64) -> Result<(), Failure> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    match soft_limit(&limits) {
        Some(limit) if limit < needed => Err(fail(format!(
            "this process may open {limit} files, and {needed} are needed: ulimit -n {needed}"
        ))),
        _ => Ok(()),
    }
}

/// Parses the limit of open files from the text of Linux.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit   Soft Limit   Hard Limit\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files   unlimited  unlimited"), None);
        assert_eq!(soft_limit(""), None);
    }
}
