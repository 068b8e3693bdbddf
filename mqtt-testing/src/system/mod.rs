//! The whole system in virtual time: hundreds of clients, a broker, wires that cut at any byte, readers that are slow,
//! connections that die unnoticed. What every client received is compared, message by message, with what MQTT promises.
//! All is decided by a seed: a seed that fails, fails again.

mod promise;
mod world;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients.
    pub clients: usize,
    /// What clients do, in all: publish, subscribe, come, go.
    pub operations: usize,
    /// Tell on standard error what happens.
    pub trace: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            clients: 200,
            operations: 1_200,
            trace: false,
        }
    }
}

/// What a run showed, for those who want to know that it was not idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages published.
    pub published: usize,
    /// Messages received.
    pub received: usize,
    /// Connections cut.
    pub cuts: usize,
    /// Connections taken over.
    pub taken_over: u64,
}

/// Runs one seed.
///
/// # Errors
/// The promise that was not kept.
pub fn run(seed: u64, plan: Plan) -> Result<Report, String> {
    let mut world = world::World::new(seed, plan);
    world.live();
    world
        .settle()
        .and_then(|()| world.check())
        .map_err(|broken| format!("seed {seed}: {broken}"))
}

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
