//! Lists the attacks. Each runs until the measurement ends or the broker closes its connection.

mod access;
mod memory;
mod sessions;
mod work;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_proto::Connect;

use crate::broker::Setup;
use crate::client::{Client, connect};
use crate::honest::Watch;

/// The broker that is attacked.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Whether the attack is to end.
    pub(crate) over: AtomicBool,
}

impl Target {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Waits, for at most a second, while the attack goes on. Returns whether it does.
    fn waits(&self, time: Duration) -> bool {
        if self.goes_on() {
            std::thread::sleep(time.min(Duration::from_secs(1)));
        }
        self.goes_on()
    }

    /// Keeps what the attack holds until it is to end.
    fn holds(&self) {
        while self.waits(Duration::from_millis(10)) {}
    }

    fn attacker(&self) -> Option<Client> {
        self.open(&connect(""))
    }

    fn open(&self, connect: &Connect<'_>) -> Option<Client> {
        self.goes_on()
            .then(|| Client::open(self.address, connect))?
    }

    /// Connects clients until the broker refuses one.
    fn crowd(&self, count: usize) -> Vec<Client> {
        (0..count).map_while(|_| self.attacker()).collect()
    }
}

/// An attack. The function returns `None` if the broker does not let the attacker continue.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Target) -> Option<()>,
    /// How many attackers run at the same time.
    pub(crate) attackers: usize,
    pub(crate) setup: Setup,
    pub(crate) watch: Watch,
}

const fn attack(name: &'static str, run: fn(&Target) -> Option<()>) -> Attack {
    Attack {
        name,
        run,
        attackers: 1,
        setup: Setup::Plain,
        watch: Watch::Pair,
    }
}

const fn none(name: &'static str) -> Attack {
    let mut quiet = attack(name, |_| None);
    quiet.attackers = 0;
    quiet
}

impl Attack {
    const fn attackers(mut self, attackers: usize) -> Self {
        self.attackers = attackers;
        self
    }

    const fn with(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    const fn watch(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }
}

/// All attacks. The first one with each [`Watch`] is no attack, for comparison.
pub(crate) const ATTACKS: &[Attack] = &[
    none("none"),
    // One client must not slow the others.
    attack(
        "5,000 times # over 1,000 retained messages",
        work::retained_messages,
    ),
    attack(
        "5,000 times # over 100,000 retained messages",
        work::many_retained_messages,
    ),
    attack(
        "8,000 filters of 64 levels, and publishes below them",
        work::filters,
    ),
    attack("20 absent sessions with full queues", sessions::full_queues),
    attack(
        "the head of a queue has 199,000 user properties",
        sessions::large_head,
    ),
    attack("a bad packet, then a flood", work::bad_packet),
    attack("the same from four clients", work::bad_packet).attackers(4),
    attack("10,000 names of share groups", work::group_names),
    attack("an ACL with 10,000 patterns", work::rules).with(Setup::Rules),
    attack("publishes of 64 levels", work::deep),
    attack("searches of 60 levels that find nothing", work::nothing),
    attack("a subscriber that never reads", work::never_reads),
    attack("retained messages set and cleared", work::set_and_cleared),
    attack(
        "2,048 subscription identifiers for one message",
        work::identifiers,
    ),
    attack(
        "8,000 subscriptions of one client for one message",
        work::overlapping,
    ),
    attack("5,000 shared subscriptions of one client", work::shared),
    attack("500 receivers of each message", sessions::receivers),
    attack(
        "120,000 QoS 2 messages that are never released",
        work::unreleased,
    )
    .attackers(2)
    .with(Setup::Window),
    attack("names of 65,000 levels", work::deepest).with(Setup::Levels),
    attack(
        "a receiver at QoS 1 slower than its publisher",
        sessions::slower_receiver,
    ),
    attack("failures, and a log that nobody reads", access::refused).with(Setup::StuckLog),
    attack(
        "a window of 65,535, resumed, acknowledged in reverse, refilled",
        sessions::window,
    )
    .with(Setup::Window),
    attack("QoS 0 that nobody hears", work::unheard),
    attack("the same from four clients, QoS 0", work::unheard).attackers(4),
    attack("a trickle of small writes", work::trickle),
    attack("SUBSCRIBE with 40,000 filters", work::large_subscribe),
    attack("200 wills at once, again and again", sessions::wills),
    attack(
        "1,000 sessions and 5,000 messages that expire together",
        sessions::due_together,
    ),
    attack(
        "a session with 10,000 messages handed over again and again",
        sessions::handed_over,
    ),
    // Memory is bounded by the settings.
    attack("400 wills of 60 kB", memory::large_wills).with(Setup::Small),
    attack("one retained byte under 64 levels", memory::deep_retained).with(Setup::Small),
    attack("8,000 filters with levels of their own", memory::filters).with(Setup::Small),
    attack(
        "200 connections with 1 MB of topic aliases",
        memory::aliases,
    )
    .with(Setup::Small),
    attack("client identifiers of 60 kB", memory::long_names).with(Setup::Small),
    attack("messages in flight to clients that left", memory::in_flight).with(Setup::Small),
    attack("100 subscribers that never read", memory::unread).with(Setup::Small),
    attack(
        "200 connections with half a packet of 2 MB",
        memory::half_packets,
    )
    .with(Setup::Small),
    attack("two greedy sessions beside an absent one", memory::greedy)
        .with(Setup::Small)
        .watch(Watch::Absent),
    // Others get in.
    none("none, for clients that connect").watch(Watch::Newcomers),
    attack("2,100 sockets without CONNECT", memory::silent).watch(Watch::Newcomers),
    attack("500 with 1 MB before CONNECT", memory::before_connect).watch(Watch::Newcomers),
    attack("3,000 sessions, of which 2,000 fit", memory::invented)
        .with(Setup::Sessions)
        .watch(Watch::Newcomers),
    // Passwords.
    none("none, for users that log in")
        .with(Setup::Users)
        .watch(Watch::LogIns),
    attack("600 wrong log-ins at once", access::burst)
        .with(Setup::Users)
        .watch(Watch::LogIns),
    attack("1,000 wrong passwords a second", access::stream)
        .with(Setup::Users)
        .watch(Watch::LogIns),
    none("none, for 1,000 users at once")
        .with(Setup::Users)
        .watch(Watch::Crowd),
    attack(
        "1,000 wrong passwords a second, beside 1,000 users",
        access::stream,
    )
    .with(Setup::Users)
    .watch(Watch::Crowd),
    none("none, for 1,000 users after a restart")
        .with(Setup::Users)
        .watch(Watch::NewCrowd),
    attack(
        "1,000 wrong passwords a second, after a restart",
        access::stream,
    )
    .with(Setup::Users)
    .watch(Watch::NewCrowd),
];
