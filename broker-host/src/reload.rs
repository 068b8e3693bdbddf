//! Changes users, rules and limits while a broker runs.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqtt_proto::num::to_u64;
use siphasher::sip::SipHasher13;
use tokio::task::spawn_blocking;

use crate::binding::BoundListeners;
use crate::guard::{Login, WAITING};
use crate::logins::Logins;
use crate::public::PublicAddress;
use crate::{Acl, Control, Error, Guard, ListenerSettings, Settings, Users, descriptors};

/// Reads the files of a running broker again. [`Listening::reloader`](crate::Listening::reloader) makes it.
#[derive(Clone, Debug)]
pub struct Reloader {
    control: Control,
    /// The settings of the start.
    started: Settings,
    /// How many threads there are.
    shards: u8,
    /// Who may connect at which listener, which other processes compare.
    logins: Arc<Logins>,
    /// The present settings of each listener, by its number.
    listeners: Arc<Mutex<Vec<(usize, ListenerSettings)>>>,
    /// The addresses to which other machines can connect.
    public: Vec<PublicAddress>,
    /// The TLS servers by the number of the listener.
    #[cfg(feature = "tls")]
    tls: Vec<(usize, Arc<mqtt_transport::tls::TlsServer>)>,
}

impl Reloader {
    pub(crate) fn new(
        control: Control,
        started: Settings,
        (shards, logins): (u8, Arc<Logins>),
        bound: &BoundListeners,
    ) -> Self {
        Self {
            control,
            listeners: Arc::new(Mutex::new(started.numbered_listeners())),
            started,
            shards,
            logins,
            public: bound.public.clone(),
            #[cfg(feature = "tls")]
            tls: bound.tls.clone(),
        }
    }

    /// Reads the user file, the ACL file and the certificates of `settings`, and replaces users, rules, limits and certificates
    /// in one step. Clients stay connected; the new rules apply to them, and the limits of CONNACK to their next connection.
    ///
    /// Each listener gets the settings of its address, wherever `settings` has that address. A listener whose address is missing
    /// keeps its settings. Returns the names of changed settings that need a new start.
    ///
    /// # Errors
    /// The errors of [`Settings::listen`]. Nothing has changed then.
    pub async fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, Error> {
        let present = self.listeners().clone();
        let (listeners, all_same) = same_addresses(&present, settings)?;
        let fixed =
            fixed_but_changed(&self.started, settings, &listeners, (all_same, self.shards))?;
        let (wanted, own) = (settings.clone(), listeners.clone());
        let shards = self.shards;
        #[cfg(feature = "tls")]
        let numbers: Vec<_> = self.tls.iter().map(|(number, _)| *number).collect();
        let read = spawn_blocking(move || {
            wanted.check()?;
            let config = wanted.config_of_process();
            let access = Access::read(&wanted, &own)?.of_shard(shards);
            #[cfg(feature = "tls")]
            let tls = certificates(&own, &numbers)?;
            #[cfg(not(feature = "tls"))]
            let tls = ();
            Ok::<_, Error>((access, config, tls))
        });
        // The task does not panic, and only the end of the runtime cancels it.
        let Ok(read) = read.await else {
            return Ok(Vec::new());
        };
        let (access, config, tls) = read?;
        for public in &self.public {
            let own = listeners
                .iter()
                .find(|(number, _)| *number == public.number);
            if let Some((_, own)) = own {
                access.protects(public, own)?;
            }
        }
        #[cfg(feature = "tls")]
        for (new, (_, server)) in tls.into_iter().zip(&self.tls) {
            server.take_over(new);
        }
        #[cfg(not(feature = "tls"))]
        let () = tls;
        descriptors::reserve(config.connections);
        self.control
            .configure(config, move |guard: &mut Guard| access.apply(guard))
            .await;
        let started = self.started.numbered_listeners();
        let logins = logins_hash(&with_former_users(&listeners, &started));
        self.logins.set(logins);
        *self.listeners() = listeners;
        settings.warn_of_unused();
        Ok(fixed)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(usize, ListenerSettings)>> {
        // The value is replaced at once, so it is valid even if a thread panicked while it held the lock.
        let locked = self.listeners.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the settings of listeners with the users of certificates of the start, which only a new start changes.
fn with_former_users(
    listeners: &[(usize, ListenerSettings)],
    started: &[(usize, ListenerSettings)],
) -> Vec<(usize, ListenerSettings)> {
    let mut all = listeners.to_vec();
    for ((_, own), (_, former)) in all.iter_mut().zip(started) {
        own.identity_as_username
            .clone_from(&former.identity_as_username);
    }
    all
}

/// Returns a hash of who may connect at which listener. Processes of different builds compare it, so the bytes that it covers are
/// written here: the standard library may change its hash and what it hashes of a type.
pub(crate) fn logins_hash(listeners: &[(usize, ListenerSettings)]) -> u64 {
    let mut hasher = SipHasher13::new();
    for (number, own) in listeners {
        hasher.write(&to_u64(*number).to_le_bytes());
        let user_file = own.user_file.as_ref();
        let user_file = user_file.map(|path| path.as_os_str().as_encoded_bytes());
        let identity = own.identity_as_username.as_deref().map(str::as_bytes);
        let certificate = own.client_certificate.as_deref().map(str::as_bytes);
        for text in [user_file, identity, certificate] {
            // No text has this length.
            let len = text.map_or(u64::MAX, |text| to_u64(text.len()));
            hasher.write(&len.to_le_bytes());
            hasher.write(text.unwrap_or_default());
        }
        let anonymous = own.allow_anonymous.map_or(2, u8::from);
        hasher.write(&[anonymous, own.client_ca.is_some().into()]);
    }
    hasher.finish()
}

/// Returns the settings of each present listener: those of its address in `wanted`, or the present ones if `wanted` does not have
/// the address. If an address occurs more than once, for example with port 0, the order decides. Also returns whether both have
/// the same addresses.
fn same_addresses(
    present: &[(usize, ListenerSettings)],
    wanted: &Settings,
) -> Result<(Vec<(usize, ListenerSettings)>, bool), Error> {
    let mut left = Vec::new();
    for (_, listener) in wanted.numbered_listeners() {
        left.push((listener.address()?, listener));
    }
    let (mut listeners, mut all_same) = (Vec::new(), true);
    for (number, own) in present {
        let address = own.address()?;
        let mut others = left.iter();
        let found = others.position(|(other, _)| other.is_same_socket(&address));
        all_same &= found.is_some();
        let listener = found.map_or_else(|| own.clone(), |at| left.remove(at).1);
        listeners.push((*number, listener));
    }
    Ok((listeners, all_same && left.is_empty()))
}

/// Reads the certificates of the listeners with these numbers again.
#[cfg(feature = "tls")]
fn certificates(
    listeners: &[(usize, ListenerSettings)],
    numbers: &[usize],
) -> Result<Vec<mqtt_transport::tls::TlsServer>, Error> {
    let of_these = listeners
        .iter()
        .filter(|(number, _)| numbers.contains(number));
    of_these.map(|(_, own)| own.tls_server()).collect()
}

/// Returns the names of the changed settings that a running broker cannot apply. `listeners` are the wanted settings of the
/// listeners of the start, in their order, `all_same` is whether no address was added or removed, and `shards` is how
/// many threads run.
fn fixed_but_changed(
    started: &Settings,
    wanted: &Settings,
    listeners: &[(usize, ListenerSettings)],
    (all_same, shards): (bool, u8),
) -> Result<Vec<&'static str>, Error> {
    let before = started.numbered_listeners();
    let (mut moved, mut begins_tls) = (!all_same, false);
    for ((_, own), (_, other)) in before.iter().zip(listeners) {
        let is_same = own.address()? == other.address()?;
        moved |= !is_same;
        begins_tls |= is_same && !own.has_tls() && other.has_tls();
    }
    let differs = |same: fn(&ListenerSettings, &ListenerSettings) -> bool| {
        let mut pairs = before.iter().zip(listeners);
        pairs.any(|((_, own), (_, other))| !same(own, other))
    };
    let fixed = [
        ("bind", moved),
        ("cert", begins_tls),
        (
            "threads",
            wanted.threads.is_some_and(|own| own != usize::from(shards)),
        ),
        ("durability", started.durability != wanted.durability),
        ("health", started.health != wanted.health),
        (
            "tcp-keep-alive",
            started.tcp_keep_alive() != wanted.tcp_keep_alive(),
        ),
        ("web", started.web != wanted.web),
        ("store", started.store != wanted.store),
        ("store-limit", started.store_limit != wanted.store_limit),
        ("engine", is_on_other_engine(started, wanted)),
        (
            "node-address",
            differs(|a, b| a.node_address == b.node_address),
        ),
        ("log-format", started.log_format != wanted.log_format),
        ("handshakes", started.handshakes != wanted.handshakes),
        (
            "identity-as-username",
            differs(|a, b| a.identity_as_username == b.identity_as_username),
        ),
        (
            "websocket-path",
            differs(|a, b| a.websocket_path == b.websocket_path),
        ),
        ("origin", differs(|a, b| a.origin == b.origin)),
        ("proxy-from", differs(|a, b| a.proxy_from == b.proxy_from)),
        (
            "forwarded-from",
            differs(|a, b| a.forwarded_from == b.forwarded_from),
        ),
    ];
    let changed = fixed.into_iter().filter(|(_, differs)| *differs);
    Ok(changed.map(|(name, _)| name).collect())
}

/// Returns whether the settings of the engine differ.
fn is_on_other_engine(started: &Settings, wanted: &Settings) -> bool {
    started.engine != wanted.engine
        || started.node != wanted.node
        || started.engine_journal != wanted.engine_journal
        || started.engine_replicas != wanted.engine_replicas
        || started.engine_lease != wanted.engine_lease
        || started.engine_patience != wanted.engine_patience
        || started.engine_shards != wanted.engine_shards
        || started.engine_redirect != wanted.engine_redirect
        || started.engine_pipe_bytes != wanted.engine_pipe_bytes
}

/// The number of a listener, its users, and whether clients may connect there without a user name.
type OfListener = (usize, Option<Users>, Option<bool>);

/// The users and rules of the files in the settings.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The logins of each listener. The first entry has those of the common settings, and the number 0, which connections have that come
    /// from no listener.
    logins: Vec<OfListener>,
    acl: Option<Acl>,
    password_queue: Option<usize>,
}

impl Access {
    /// Reads the files of the settings and of these listeners.
    pub(crate) fn read(
        settings: &Settings,
        listeners: &[(usize, ListenerSettings)],
    ) -> Result<Self, Error> {
        let mut read: Vec<(PathBuf, Users)> = Vec::new();
        let mut logins = Vec::new();
        let all = (0, settings.common());
        let own = listeners.iter().cloned();
        for (number, listener) in std::iter::once(all).chain(own) {
            let users = match listener.user_file {
                None => None,
                // Each file is read once, so that all listeners share the remembered passwords.
                Some(path) => match read.iter().find(|(known, _)| *known == path) {
                    Some((_, users)) => Some(users.clone()),
                    None => {
                        let users = settings.users(&path)?;
                        read.push((path, users.clone()));
                        Some(users)
                    }
                },
            };
            logins.push((number, users, listener.allow_anonymous));
        }
        let mut access = Self {
            logins,
            acl: settings.acl_file.as_deref().map(Acl::read).transpose()?,
            password_queue: settings.password_queue,
        };
        access.decide_outside(listeners);
        Ok(access)
    }

    /// Decides who may connect where the program accepts connections, such as on the port of a page, which is no listener of the
    /// settings. If the common settings do not decide it, clients without a user name may connect there only if they may at a listener.
    fn decide_outside(&mut self, listeners: &[(usize, ListenerSettings)]) {
        let Some(((_, None, decision @ None), own)) = self.logins.split_first_mut() else {
            return;
        };
        let is_open =
            |((_, users, anonymous), (_, listener)): (&OfListener, &(_, ListenerSettings))| {
                let needs_certificate = listener.has_tls() && listener.requires_certificate();
                anonymous.unwrap_or_else(|| users.is_none()) && !needs_certificate
            };
        if !listeners.is_empty() && !own.iter().zip(listeners).any(is_open) {
            *decision = Some(false);
        }
    }

    /// Returns the same for one of several shards, which divide the queue of passwords.
    pub(crate) fn of_shard(mut self, shards: u8) -> Self {
        let most = self.password_queue.unwrap_or(WAITING);
        self.password_queue = Some(most.div_ceil(usize::from(shards.max(1))));
        self
    }

    /// Returns the logins, for [`Self::protects`].
    pub(crate) fn logins_only(&self) -> Self {
        Self {
            logins: self.logins.clone(),
            acl: None,
            password_queue: None,
        }
    }

    /// Returns whether the listener with this number has users, or a decision on clients without a user name.
    pub(crate) fn decides_at(&self, number: usize) -> bool {
        let own = self.logins.iter().rev().find(|(own, ..)| *own == number);
        let login = own.or_else(|| self.logins.first());
        login.is_some_and(|(_, users, anonymous)| users.is_some() || anonymous.is_some())
    }

    pub(crate) fn apply(self, guard: &mut Guard) {
        let login = |users: Option<Users>, anonymous: Option<bool>| Login {
            anonymous: anonymous.unwrap_or_else(|| users.is_none()),
            users,
        };
        let mut logins = self.logins.into_iter();
        if let Some((_, users, anonymous)) = logins.next() {
            let all = login(users, anonymous);
            (guard.users, guard.anonymous) = (all.users, all.anonymous);
        }
        guard.logins = logins
            .map(|(number, users, anonymous)| (number, login(users, anonymous)))
            .collect();
        guard.set_password_queue(self.password_queue.unwrap_or(WAITING));
        guard.acl = self.acl;
    }
}

impl Settings {
    fn users(&self, path: &Path) -> Result<Users, Error> {
        let mut users = Users::read(path)?;
        if let Some(seconds) = self.password_memory {
            users.remember_for(Duration::from_secs(seconds.into()));
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    /// Returns the user files of the listeners of `started` after `wanted` was read, and the names of the settings that need a
    /// new start.
    fn reloaded(started: &str, wanted: &str) -> (Vec<String>, Vec<&'static str>) {
        let (started, wanted) = (settings(started), settings(wanted));
        let (listeners, all_same) = same_addresses(&started.numbered_listeners(), &wanted).unwrap();
        let fixed = fixed_but_changed(&started, &wanted, &listeners, (all_same, 1)).unwrap();
        let users = listeners.into_iter().map(|(_, own)| own.user_file);
        let users = users.map(|file| file.map_or(String::new(), |file| file.display().to_string()));
        (users.collect(), fixed)
    }

    /// Whoever needs a password or a certificate at each listener needs a password where there is none.
    #[test]
    fn a_connection_from_no_listener_may_be_anonymous_if_one_from_a_listener_may() {
        const PAIR: &str = "cert = 'c'\nkey = 'k'\nclient-ca = 'a'\n";
        let certified = |bind: &str| format!("{PAIR}bind = [{bind}]");
        let closed = "[[listener]]\nbind = ['h:1']\nallow-anonymous = false\n";
        for (text, may_be_anonymous) in [
            ("", true),
            ("bind = ['h:1']", true),
            ("bind = ['h:1']\nallow-anonymous = false", false),
            (closed, false),
            (&format!("{closed}[[listener]]\nbind = ['h:2']\n"), true),
            (&format!("allow-anonymous = true\n{closed}"), true),
            (&certified("'mqtts://h:1'"), false),
            (&certified("'mqtts://h:1', 'h:2'"), true),
            (
                &format!(
                    "client-certificate = 'optional'\n{}",
                    certified("'mqtts://h:1'")
                ),
                true,
            ),
        ] {
            let settings = settings(text);
            let access = Access::read(&settings, &settings.numbered_listeners()).unwrap();
            let mut guard = Guard::new(crate::control().0).unwrap();
            access.apply(&mut guard);
            assert_eq!(guard.anonymous, may_be_anonymous, "{text}");
        }
    }

    const TABLES: &str = "[[listener]]\nbind = ['h:1']\nuser-file = 'one'\n\
                          [[listener]]\nbind = ['ws://h:2', 'unix:///s']\nuser-file = 'two'\n";

    #[test]
    fn settings_follow_their_address_to_another_place_in_the_file() {
        let started = reloaded(TABLES, TABLES);
        assert_eq!(
            started,
            (["one", "two", "two"].map(str::to_owned).into(), vec![])
        );
        for reordered in [
            "[[listener]]\nbind = ['unix:///s', 'ws://h:2']\nuser-file = 'two'\n\
             [[listener]]\nbind = ['mqtt://h:1']\nuser-file = 'one'\n",
            "bind = ['h:1?user-file=one', 'unix:///s', 'ws://h:2']\nuser-file = 'two'\n",
            "bind = ['ws://h:2']\nuser-file = 'two'\n\
             [[listener]]\nbind = ['h:1']\nuser-file = 'one'\n\
             [[listener]]\nbind = ['unix:///s']\n",
        ] {
            assert_eq!(reloaded(TABLES, reordered), started, "{reordered}");
        }
    }

    #[test]
    fn a_listener_without_its_address_keeps_its_settings() {
        let other = "[[listener]]\nbind = ['h:3', 'ws://h:2']\nuser-file = 'three'\n";
        let (users, fixed) = reloaded(TABLES, other);
        assert_eq!(
            (&users[..], &fixed[..]),
            (
                &["one", "three", "two"].map(str::to_owned)[..],
                &["bind"][..]
            )
        );
    }

    #[test]
    fn another_protocol_or_path_at_an_address_needs_a_new_start() {
        for (wanted, name) in [
            ("bind = ['mqtts://h:1']", "bind"),
            ("bind = ['h:1']\nwebsocket-path = '/a'", "websocket-path"),
        ] {
            assert_eq!(reloaded("bind = ['h:1']", wanted).1, [name]);
        }
        assert_eq!(
            reloaded("bind = ['ws://h:1/a']", "bind = ['ws://h:1/b']").1,
            ["bind"]
        );
        // Only what has TLS at the start reads certificates again.
        let certified = "bind = ['any://h:1', 'h:2']\ncert = ['c']\nkey = ['k']";
        assert_eq!(
            reloaded("bind = ['any://h:1', 'h:2']", certified).1,
            ["cert"]
        );
        assert_eq!(reloaded(certified, certified).1, [""; 0]);
    }

    /// The hash is the same in all builds of the program. Another program computed these values from the definition of SipHash-1-3.
    #[test]
    fn the_hash_of_logins_stays() {
        let hash = |text| logins_hash(&settings(text).numbered_listeners());
        assert_eq!(hash("bind = ['h:1']"), 0xC3F9_D688_9C32_1C50);
        let two = "bind = ['h:1', 'mqtts://h:2']\nuser-file = '/etc/mqtt/users'\nallow-anonymous = false\n\
            client-ca = '/ca'\nclient-certificate = 'optional'\nidentity-as-username = 'email'";
        assert_eq!(hash(two), 0x6F32_008F_162D_9402);
    }

    /// The hash that other processes compare is that of the settings in force.
    #[tokio::test]
    async fn a_reload_renews_the_hash_of_logins() {
        // The address has no TLS, so these files are not read.
        let open = settings(
            "bind = ['127.0.0.1:0']\nallow-anonymous = true\ncert = 'c'\nkey = 'k'\nclient-ca = 'a'",
        );
        let listening = open.listen().await.unwrap();
        let reloader = listening.reloader();
        let hash = |settings: &Settings| logins_hash(&settings.numbered_listeners());
        let mut other = open.clone();
        other.identity_as_username = Some("common-name".to_owned());
        let serving = listening.run(async {
            assert_eq!(reloader.reload(&open).await.unwrap(), [""; 0]);
            assert_eq!(reloader.logins.hash(), hash(&open));
            // Only a new start takes the user from certificates.
            reloader.reload(&other).await.unwrap();
            assert_eq!(reloader.logins.hash(), hash(&open));
            other.allow_anonymous = Some(false);
            reloader.reload(&other).await.unwrap();
            other.identity_as_username = None;
            assert_ne!(hash(&other), hash(&open));
            assert_eq!(reloader.logins.hash(), hash(&other));
        });
        serving.await.unwrap();
    }
}
