//! Implements the hooks that ask the user file and the ACL file, and log the actions of clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mqtt_broker::{
    ClientInfo, ConnectionId, Ending, Hooks, Memory, Observation, PlaceOf, Statistics, Verdict,
};
use mqtt_proto::{Connect, ReasonCode, TopicFilter, TopicName};
use tokio::time::Instant;
use tracing::field::DisplayValue;
use tracing::{Level, debug, info, warn};

use crate::checks::{Added, Check, PasswordChecks};
use crate::logging::{Quota, cut};
use crate::memory::memory;
use crate::peer::source;
use crate::priority::spawn_lower;
use crate::random::random;
use crate::shards::Whole;
use crate::users::Users;
use crate::{Acl, Control, Error};

/// How many password comparisons may wait.
pub(crate) const WAITING: usize = 100;

/// Hooks that ask a user file and an ACL file, and log the actions of clients to `tracing`: connections at INFO, refusals at
/// WARN, subscriptions at DEBUG.
///
/// A password is compared on a thread of a lower priority, and the broker serves others meanwhile. A bounded number of
/// comparisons waits. The addresses of clients have turns, and the oldest comparison of an address is done first (the newest one
/// while the queue is more than half full). If the queue is full, a new client displaces the one that has waited longest at the
/// address with the most, which is refused as "server busy". A correct password is recognised for some time without a comparison:
/// see [`Users::remember_for`].
///
/// ```no_run
/// use std::path::Path;
/// use mqtt_broker_host::broker::Config;
/// use mqtt_broker_host::{Guard, Host, Users, control, listen, signals};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (control, commands) = control();
/// let mut guard = Guard::new(control)?;
/// guard.users = Some(Users::read(Path::new("users"))?);
/// guard.anonymous = false;
/// let host = Host::new(Config::default(), guard, commands);
/// host.run([listen(([0, 0, 0, 0], 1883).into())?], signals::interrupted()).await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Guard {
    /// The users that may connect; with `None`, all if [`Self::anonymous`] is set, and otherwise only those whom a certificate
    /// names. Default: `None`.
    pub users: Option<Users>,
    /// The rules for publishing and subscribing; with `None`, all is allowed. Default: `None`.
    pub acl: Option<Acl>,
    /// Whether clients may connect without a user name, and without [`Self::users`] with any name. Default: `true`.
    pub anonymous: bool,
    /// The logins of listeners with separate settings, by the numbers of the listeners.
    pub(crate) logins: HashMap<usize, Login>,
    control: Control,
    checks: PasswordChecks,
    quota: Quota,
    /// The counts of all shards, and the number of this one, if there are several.
    pub(crate) board: Option<(u8, Arc<Whole>)>,
    /// The next number if the system returns none: it is drawn at the start and counted up.
    seed: u128,
}

/// The clients that may connect to one listener.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) users: Option<Users>,
    pub(crate) anonymous: bool,
}

impl Guard {
    /// Makes hooks that allow everything. `control` belongs to the host that gets the hooks.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn new(control: Control) -> Result<Self, Error> {
        Ok(Self {
            users: None,
            acl: None,
            anonymous: true,
            logins: HashMap::new(),
            control,
            checks: PasswordChecks::new(WAITING),
            quota: Quota::default(),
            board: None,
            seed: u128::from_le_bytes(random()?),
        })
    }

    /// Sets how many clients may wait for the comparison of their password. Default: 100.
    pub fn set_password_queue(&mut self, most: usize) {
        self.checks.set_most(most);
    }

    /// Returns the address of an observed client.
    fn address(&self, observation: &Observation<'_>) -> Option<SocketAddr> {
        let connection = match observation {
            Observation::Connected { connection, .. }
            | Observation::Refused { connection, .. }
            | Observation::Ended { connection, .. } => Some(*connection),
            Observation::Subscribed { connection, .. }
            | Observation::PublishRefused { connection, .. }
            | Observation::Dropped { connection, .. }
            | Observation::SlowConsumer { connection, .. }
            | Observation::PublishersWait { connection, .. }
            | Observation::QueueFull { connection, .. }
            | Observation::RetainRefused { connection, .. } => *connection,
            _ => None,
        };
        self.control.peer(connection?)?.address
    }

    /// Returns whether a client subscribed to a filter of which it may read no topic.
    fn reads_nothing(&self, observation: &Observation<'_>) -> bool {
        let Observation::Subscribed {
            client,
            filter,
            reason,
            ..
        } = observation
        else {
            return false;
        };
        let acl = self.acl.as_ref().filter(|_| !reason.is_error());
        acl.is_some_and(|acl| !acl.may_read_some(client, *filter))
    }

    fn check(&self, check: Check) -> Verdict {
        let Added {
            displaced,
            needs_worker,
        } = self.checks.add(check);
        for displaced in displaced {
            let control = self.control.clone();
            let busy = Verdict::Refuse(ReasonCode::ServerBusy);
            tokio::spawn(async move { control.decide(displaced, busy).await });
        }
        if needs_worker {
            self.start_worker();
        }
        Verdict::Later
    }

    fn start_worker(&self) {
        let (checks, control) = (self.checks.clone(), self.control.clone());
        let work = move || {
            checks.work(
                |check, memory| check.claim.hash.verify(&check.password, memory),
                |connection, is_right| control.decide_blocking(connection, verdict(is_right)),
            );
        };
        if spawn_lower("passwords", work.clone()).is_err() {
            // The runtime has a thread, or gets one later.
            tokio::task::spawn_blocking(work);
        }
    }
}

const fn verdict(is_right: bool) -> Verdict {
    match is_right {
        true => Verdict::Accept,
        false => Verdict::Refuse(ReasonCode::BadUserNameOrPassword),
    }
}

impl Hooks for Guard {
    fn unguessable(&mut self) -> u128 {
        self.seed = self.seed.wrapping_add(1);
        random().map_or(self.seed, u128::from_le_bytes)
    }

    fn connect(&mut self, connection: ConnectionId, connect: &Connect<'_>) -> Verdict {
        let peer = self.control.peer(connection);
        let login = peer
            .as_ref()
            .and_then(|peer| self.logins.get(&peer.listener));
        let (users, anonymous) = match login {
            Some(login) => (&login.users, login.anonymous),
            None => (&self.users, self.anonymous),
        };
        // TLS has authenticated the client.
        if let Some(user) = peer.as_ref().and_then(|peer| peer.user.as_ref()) {
            return Verdict::AcceptAs(user.to_string());
        }
        let Some(user) = connect.user_name else {
            return if anonymous {
                Verdict::Accept
            } else {
                Verdict::Refuse(ReasonCode::NotAuthorized)
            };
        };
        let Some(users) = users else {
            // Nobody has a password, so a name proves nothing.
            return if anonymous {
                Verdict::Accept
            } else {
                verdict(false)
            };
        };
        let password = connect.password.unwrap_or_default();
        let Some(claim) = users.claim(user, password) else {
            return verdict(false);
        };
        if claim.memory.knows(user, &claim.proof, Instant::now()) {
            return Verdict::Accept;
        }
        let address = peer.and_then(|peer| peer.address);
        self.check(Check {
            connection,
            // Clients without an address share a number.
            source: address.map_or(0, |address| source(address.ip())),
            user: user.to_owned(),
            password: password.to_vec(),
            claim,
        })
    }

    fn may_publish(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_publish(client, topic))
    }

    fn may_receive_all(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_read_all(client, filter))
    }

    fn may_receive(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_read(client, topic))
    }

    fn memory(&self) -> Option<Memory> {
        memory()
    }

    fn take_place(&mut self, of: PlaceOf, limit: usize) -> bool {
        let board = self.board.as_ref();
        board.is_none_or(|(_, whole)| whole.take_place(of, limit))
    }

    fn free_place(&mut self, of: PlaceOf) {
        if let Some((_, whole)) = &self.board {
            whole.free_place(of);
        }
    }

    fn statistics(&mut self, own: Statistics) -> Statistics {
        match &self.board {
            Some((shard, whole)) => whole.statistics(*shard, own),
            None => own,
        }
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        if let Observation::Ended {
            connection,
            client_id: None,
            ..
        } = observation
        {
            self.checks.forget(*connection);
            // The end below MQTT has a line of its own, with its reason.
            let peer = self.control.peer(*connection);
            if peer.is_some_and(|peer| peer.is_told) {
                return;
            }
        }
        let reads_nothing = self.reads_nothing(observation);
        let (client, mut level) = about(observation);
        if reads_nothing {
            level = Level::INFO;
        }
        if tracing::level_filters::LevelFilter::current() < level {
            return;
        }
        if self.quota.allows_line(client, Instant::now()) {
            let address = self.address(observation).map(tracing::field::display);
            if reads_nothing {
                log_reads_nothing(observation, address);
            } else {
                log(observation, address);
            }
        }
    }
}

/// Returns the client of an observation, and the level at which it is logged.
fn about<'a>(observation: &Observation<'a>) -> (Option<&'a str>, Level) {
    match observation {
        Observation::Connected { client, .. } => (Some(client.client_id), Level::INFO),
        // Refusals count together for all names, so that a client cannot use up the lines of the log that another client has.
        Observation::Refused { .. } => (None, Level::WARN),
        Observation::Ended {
            client_id, ending, ..
        } => match ending {
            Ending::ConnectRefused(_) => (None, Level::DEBUG),
            Ending::ConnectTooLarge { .. } => (None, Level::WARN),
            Ending::ByClient(_) => (*client_id, Level::INFO),
            _ if client_id.is_none() => (None, Level::INFO),
            _ => (*client_id, Level::WARN),
        },
        Observation::Subscribed { client, reason, .. } => match reason.is_error() {
            true => (Some(client.client_id), Level::WARN),
            false => (Some(client.client_id), Level::DEBUG),
        },
        Observation::PublishRefused { client, .. } | Observation::RetainRefused { client, .. } => {
            (Some(client.client_id), Level::WARN)
        }
        Observation::Dropped { client_id, .. } => (Some(client_id), Level::DEBUG),
        Observation::SlowConsumer { client_id, .. }
        | Observation::PublishersWait { client_id, .. }
        | Observation::QueueFull { client_id, .. } => (Some(client_id), Level::WARN),
        // No client has this name, so none can use up these lines.
        Observation::PublishersWaitForShard { .. } | Observation::ShardGivenUp { .. } => {
            (Some("\0shards"), Level::WARN)
        }
        _ => (None, Level::DEBUG),
    }
}

/// Logs an observation. Texts from clients are logged as text, which quotes and escapes them.
fn log(observation: &Observation<'_>, peer: Option<DisplayValue<SocketAddr>>) {
    match observation {
        Observation::Connected {
            client, resumed, ..
        } => info!(
            client = &*cut(client.client_id),
            user = client.user_name.map(cut).as_deref(),
            version = %client.version,
            resumed,
            peer,
            "connected"
        ),
        Observation::Refused { client, reason, .. } => warn!(
            client = &*cut(client.client_id),
            user = client.user_name.map(cut).as_deref(),
            version = %client.version,
            %reason,
            peer,
            "refused"
        ),
        Observation::Ended {
            client_id, ending, ..
        } => log_end(client_id.map(cut).as_deref(), ending, peer),
        Observation::Subscribed {
            client,
            filter,
            reason,
            ..
        } => log_subscription(client, *filter, *reason, peer),
        Observation::PublishRefused {
            client,
            topic,
            reason,
            ..
        } => warn!(
            client = &*cut(client.client_id),
            topic = &*cut(topic.as_str()),
            %reason,
            peer,
            "publish refused"
        ),
        Observation::RetainRefused { client, topic, .. } => warn!(
            client = &*cut(client.client_id),
            topic = &*cut(topic.as_str()),
            peer,
            "not retained: there is no room for another retained message"
        ),
        _ => log_queue(observation, peer),
    }
}

fn log_subscription(
    client: &ClientInfo<'_>,
    filter: TopicFilter<'_>,
    reason: ReasonCode,
    peer: Option<DisplayValue<SocketAddr>>,
) {
    let (client, filter) = (cut(client.client_id), filter.to_string());
    let (client, filter) = (&*client, &*cut(&filter));
    if reason.is_error() {
        warn!(client, filter, %reason, peer, "subscription refused");
    } else {
        debug!(client, filter, %reason, peer, "subscribed");
    }
}

/// Logs a subscription to a filter of which the client may read no topic: its user may wait for messages in vain.
fn log_reads_nothing(observation: &Observation<'_>, peer: Option<DisplayValue<SocketAddr>>) {
    if let Observation::Subscribed { client, filter, .. } = observation {
        info!(
            client = &*cut(client.client_id),
            filter = &*cut(&filter.to_string()),
            peer,
            "subscribed, but the ACL file lets it read no topic of the filter"
        );
    }
}

/// Logs an observation about the queue of a client.
fn log_queue(observation: &Observation<'_>, peer: Option<DisplayValue<SocketAddr>>) {
    let (client, messages, what) = match observation {
        Observation::Dropped {
            client_id,
            messages,
            ..
        } => {
            debug!(client = &*cut(client_id), messages, peer, "dropped");
            return;
        }
        Observation::SlowConsumer {
            client_id,
            messages,
            ..
        } => (
            client_id,
            messages,
            "slow consumer: nobody waits for it, and what its queue has no room for is dropped",
        ),
        Observation::PublishersWait {
            client_id,
            messages,
            ..
        } => (
            client_id,
            messages,
            "it takes messages more slowly than they come, and their publishers wait for it",
        ),
        Observation::QueueFull {
            client_id,
            messages,
            ..
        } => (
            client_id,
            messages,
            "its queue is full: messages are dropped until there is room",
        ),
        _ => return log_shard(observation),
    };
    warn!(client = &*cut(client), messages, peer, "{what}");
}

/// Logs an observation about the queue of another shard.
fn log_shard(observation: &Observation<'_>) {
    let (shard, messages, what) = match observation {
        Observation::PublishersWaitForShard { shard, messages } => (
            shard,
            messages,
            "the shard is away and its queue is more than half full: publishers wait for it",
        ),
        Observation::ShardGivenUp { shard, messages } => (
            shard,
            messages,
            "the shard took nothing for too long: nobody waits for it, and what its queue has no room for is dropped",
        ),
        _ => return,
    };
    warn!(shard, messages, "{what}");
}

/// Logs the end of a connection. A refusal has already been logged.
fn log_end(client: Option<&str>, ending: &Ending, peer: Option<DisplayValue<SocketAddr>>) {
    match (client, ending) {
        (None, Ending::ConnectRefused(reason)) => debug!(%reason, peer, "ended"),
        (None, Ending::ConnectTooLarge { .. }) => warn!(why = %ending, peer, "refused"),
        (None, ending) => info!(why = %ending, peer, "a connection ended without a client"),
        (Some(client), Ending::ByClient(reason)) => info!(client, %reason, peer, "disconnected"),
        (Some(client), ending) => warn!(client, why = %ending, peer, "disconnected"),
    }
}
