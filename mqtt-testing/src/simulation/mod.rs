//! The whole system in virtual time: hundreds of programs, each with an [`mqtt_agent::Agent`], a broker, wires that are cut at
//! any byte, slow readers, connections whose end is not noticed, processes that are killed and start again, a broker and
//! clients that crash and are restored from their journals. Between some clients and the broker are the stages of
//! `mqtt_transport`. The messages of every program are compared with the promises of MQTT. A seed decides everything, so a
//! failing seed fails again.

mod away;
mod clients;
mod disk;
mod engine;
mod expectations;
mod layers;
mod operations;
mod process;
mod program;
mod published;
mod shards;
mod shrink;
mod tls;
mod wills_and_shards;
mod wire;
mod world;

pub use engine::{CommitError, Engine, NewEngine};
pub use shrink::explain;

/// The events that may happen in a run, as bits of [`Plan::classes`].
pub mod class {
    /// Wires are cut.
    pub const CUTS: u32 = 1;
    /// Processes are killed.
    pub const KILLS: u32 = 1 << 1;
    /// Agents are closed.
    pub const CLOSES: u32 = 1 << 2;
    /// Programs publish what they receive.
    pub const BRIDGES: u32 = 1 << 3;
    /// Clients have wills.
    pub const WILLS: u32 = 1 << 4;
    /// Messages are retained.
    pub const RETAINED: u32 = 1 << 5;
    /// Subscriptions are shared.
    pub const SHARED: u32 = 1 << 6;
    /// Messages expire.
    pub const EXPIRY: u32 = 1 << 7;
    /// Programs are slow to take messages.
    pub const SLOW: u32 = 1 << 8;
    /// Programs acknowledge by hand or on arrival.
    pub const BY_HAND: u32 = 1 << 9;
    /// Programs unsubscribe.
    pub const UNSUBSCRIBES: u32 = 1 << 10;
    /// Programs drop streams without unsubscribing.
    pub const FORGETS: u32 = 1 << 11;
    /// Limits of queues and bytes are low.
    pub const LIMITS: u32 = 1 << 12;
    /// Processes start with a clean session though they had one.
    pub const CLEAN: u32 = 1 << 13;
    /// The broker crashes, and is restored from its journal.
    pub const CRASHES: u32 = 1 << 14;
    /// Queues are so short that publishers must wait; then nobody is cut, killed or closed.
    pub const PRESSURE: u32 = 1 << 15;
    /// There are stages between some clients and the broker: WebSocket, a model of TLS, the header of a proxy.
    pub const LAYERS: u32 = 1 << 16;
    /// Some clients have a disk, from which the next process restores the session, and some of their programs store notes.
    pub const DISKS: u32 = 1 << 17;
    /// All bits.
    pub const EVERY: u32 = (1 << 18) - 1;
    /// All bits, with their names.
    pub const ALL: [(u32, &str); 18] = [
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
        (CRASHES, "crashes"),
        (PRESSURE, "pressure"),
        (LAYERS, "layers"),
        (DISKS, "disks"),
    ];
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many clients there are.
    pub clients: usize,
    /// How many operations all clients do in total: publish, subscribe, begin, end.
    pub operations: usize,
    /// Whether to print the events on standard error.
    pub trace: bool,
    /// Which events may happen; see [`class`].
    pub classes: u32,
    /// The shards of the broker: 1, 2, or a random number of at least 2 and at most this one.
    pub shards: usize,
    /// The engine of the journals of all shards. Without one, half of the worlds have disks.
    pub engine: Option<NewEngine>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clients: 200,
            operations: 1_200,
            trace: false,
            classes: class::EVERY,
            shards: 1,
            engine: None,
        }
    }
}

/// The counts of a run, which show that many events happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages published.
    pub published: usize,
    /// Messages that programs received.
    pub received: usize,
    /// Messages that programs received again, as MQTT allows.
    pub repeated: usize,
    /// Connections cut.
    pub cuts: usize,
    /// Processes killed.
    pub kills: usize,
    /// Processes with a disk that were killed or closed.
    pub restored: usize,
    /// Processes whose disk was lost as well.
    pub disks_lost: usize,
    /// Messages of these that the next process continued to send.
    pub continued: usize,
    /// Messages that programs acknowledged with a note.
    pub noted: usize,
    /// Crashes of the broker.
    pub crashes: usize,
    /// Shards that were away while others served.
    pub away: usize,
    /// Processes that went on while another one took over their shard.
    pub left_behind: usize,
    /// Of these, processes whose records the engine refused.
    pub refused: usize,
    /// Links between shards that were cut.
    pub links_cut: usize,
    /// Messages that went from one shard to another.
    pub between_shards: u64,
    /// Connections taken over.
    pub taken_over: u64,
    /// Clients with short queues from which nothing was dropped.
    pub short_queues: usize,
    /// Clients with short queues whose publishers could not be slowed down enough.
    pub given_up: usize,
    /// Connections with stages whose handshakes ended well.
    pub layered: usize,
    /// Connections with stages that one side ended, and whose other side saw the end of each protocol.
    pub ended: usize,
}

impl Report {
    /// Adds the counts of another run.
    pub const fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.received += other.received;
        self.repeated += other.repeated;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.restored += other.restored;
        self.disks_lost += other.disks_lost;
        self.continued += other.continued;
        self.noted += other.noted;
        self.crashes += other.crashes;
        self.away += other.away;
        self.left_behind += other.left_behind;
        self.refused += other.refused;
        self.links_cut += other.links_cut;
        self.between_shards += other.between_shards;
        self.taken_over += other.taken_over;
        self.short_queues += other.short_queues;
        self.given_up += other.given_up;
        self.layered += other.layered;
        self.ended += other.ended;
    }
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The client to which the promise was given, if it is known.
    pub client: Option<usize>,
    /// A sentence that says which promise was broken, and how.
    pub what: String,
    /// The operations of that client and the packets on its wire, if they were recorded.
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
/// A promise was broken.
pub fn run(seed: u64, plan: Plan) -> Result<Report, Failure> {
    run_with_log(seed, plan, None)
}

/// Runs one seed, and records the operations and packets of one client.
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

/// The client to which a promise was given, if it is known, and how it was broken.
type Violation = (Option<usize>, String);

/// Numbers that depend only on a seed.
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

    /// Returns a number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).expect("small")).expect("small")
    }

    /// Returns true once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
