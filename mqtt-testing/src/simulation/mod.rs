//! The whole system in virtual time: hundreds of programs, each with an [`mqtt_agent::Agent`], a broker, wires that cut at
//! any byte, readers that are slow, connections that die unnoticed, processes that are killed and start again. What every
//! program got is compared, message by message, with what MQTT expectations.
//! All is decided by a seed: a seed that fails, fails again.

mod expectations;
mod operations;
mod process;
mod program;
mod shrink;
mod wire;
mod world;

pub use shrink::explain;

/// What may happen in a run, as bits of [`Plan::classes`].
pub mod class {
    /// Wires are cut.
    pub const CUTS: u16 = 1;
    /// Processes are killed.
    pub const KILLS: u16 = 1 << 1;
    /// Agents are closed.
    pub const CLOSES: u16 = 1 << 2;
    /// Programs publish what they hear.
    pub const BRIDGES: u16 = 1 << 3;
    /// Clients have wills.
    pub const WILLS: u16 = 1 << 4;
    /// Messages are retained.
    pub const RETAINED: u16 = 1 << 5;
    /// Subscriptions are shared.
    pub const SHARED: u16 = 1 << 6;
    /// Messages expire.
    pub const EXPIRY: u16 = 1 << 7;
    /// Programs are slow to take messages.
    pub const SLOW: u16 = 1 << 8;
    /// Programs acknowledge by hand or on receipt.
    pub const BY_HAND: u16 = 1 << 9;
    /// Programs unsubscribe.
    pub const UNSUBSCRIBES: u16 = 1 << 10;
    /// Programs drop streams without unsubscribing.
    pub const FORGETS: u16 = 1 << 11;
    /// Limits of queues and bytes are low.
    pub const LIMITS: u16 = 1 << 12;
    /// Processes start clean though they had a session.
    pub const CLEAN: u16 = 1 << 13;
    /// All of them, with their names.
    pub const ALL: [(u16, &str); 14] = [
        (CUTS, "cuts"),
        (KILLS, "kills"),
        (CLOSES, "closes"),
        (BRIDGES, "bridges"),
        (WILLS, "wills"),
        (RETAINED, "retained"),
        (SHARED, "shared"),
        (EXPIRY, "expiry"),
        (SLOW, "slow"),
        (BY_HAND, "by hand"),
        (UNSUBSCRIBES, "unsubscribes"),
        (FORGETS, "forgets"),
        (LIMITS, "limits"),
        (CLEAN, "clean"),
    ];
}

/// How a run is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Clients.
    pub clients: usize,
    /// What clients do, in all: publish, subscribe, come, go.
    pub operations: usize,
    /// Tell on standard error what happens.
    pub trace: bool,
    /// What may happen; see [`class`].
    pub classes: u16,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clients: 200,
            operations: 1_200,
            trace: false,
            classes: u16::MAX,
        }
    }
}

/// What a run showed, for those who want to know that it was not idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages published.
    pub published: usize,
    /// Messages that programs got.
    pub received: usize,
    /// Messages that programs got once more, as MQTT lets it happen.
    pub repeated: usize,
    /// Connections cut.
    pub cuts: usize,
    /// Processes killed.
    pub kills: usize,
    /// Connections taken over.
    pub taken_over: u64,
}

impl Report {
    /// Adds what another run showed.
    pub const fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.received += other.received;
        self.repeated += other.repeated;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.taken_over += other.taken_over;
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The number of the client to whom it was given, if it is known.
    pub client: Option<usize>,
    /// What happened.
    pub what: String,
    /// What that client did, and what went over its wire, if it was recorded.
    pub log: Vec<String>,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// Runs one seed.
///
/// # Errors
/// The promise that was not kept.
pub fn run(seed: u64, plan: Plan) -> Result<Report, Failure> {
    run_with_log(seed, plan, None)
}

/// Runs one seed and records what one client does and what goes over its wire.
fn run_with_log(seed: u64, plan: Plan, log: Option<usize>) -> Result<Report, Failure> {
    let mut world = world::World::new(seed, plan, log);
    world
        .live()
        .and_then(|()| world.settle())
        .and_then(|()| world.check())
        .map_err(|(client, what)| Failure {
            seed,
            client,
            what,
            log: world.into_log(),
        })
}

/// Whom a promise was given to, if it is known, and how it was broken.
type Violation = (Option<usize>, String);

/// A stream of numbers that a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).expect("small")).expect("small")
    }

    /// Once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
