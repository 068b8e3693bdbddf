//! Changes users, rules and limits while a broker runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::binding::Bound;
use crate::guard::{Login, WAITING};
use crate::{Acl, Control, Error, Guard, ListenerSettings, Settings, Users};

/// Reads the files of a running broker again. [`Listening::reloader`](crate::Listening::reloader) makes it.
#[derive(Clone, Debug)]
pub struct Reloader {
    control: Control,
    /// The settings of the start.
    started: Settings,
    /// Addresses to which other machines can connect without a certificate, with the numbers of their listeners.
    public: Vec<(usize, SocketAddr)>,
    /// The TLS servers by the number of the listener.
    #[cfg(feature = "tls")]
    tls: Vec<(usize, std::sync::Arc<mqtt_transport::tls::TlsServer>)>,
}

impl Reloader {
    pub(crate) fn new(control: Control, started: Settings, bound: &Bound) -> Self {
        Self {
            control,
            started,
            public: bound.public.clone(),
            #[cfg(feature = "tls")]
            tls: bound.tls.clone(),
        }
    }

    /// Reads the user file, the ACL file and the certificates of `settings`, and replaces users, rules, limits and certificates
    /// in one step. Clients stay connected; the new rules apply to them, and the limits of CONNACK to their next connection.
    /// Returns the names of changed settings that need a new start.
    ///
    /// # Errors
    /// The errors of [`Settings::listen`]. Nothing has changed then.
    pub async fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, Error> {
        // The listeners are those of the start, so what is read for them is of the same addresses.
        let bind = self.started.bind.clone();
        let wanted = Settings {
            bind,
            ..settings.clone()
        };
        #[cfg(feature = "tls")]
        let numbers: Vec<_> = self.tls.iter().map(|(number, _)| *number).collect();
        let read = spawn_blocking(move || {
            wanted.check()?;
            let config = wanted.config();
            let access = Access::read(&wanted)?;
            #[cfg(feature = "tls")]
            let tls = certificates(&wanted, &numbers)?;
            #[cfg(not(feature = "tls"))]
            let tls = ();
            Ok::<_, Error>((access, config, tls))
        });
        // The task does not panic, and only the end of the runtime cancels it.
        let Ok(read) = read.await else {
            return Ok(Vec::new());
        };
        let (access, config, tls) = read?;
        access.protects(&self.public)?;
        #[cfg(feature = "tls")]
        for (new, (_, server)) in tls.into_iter().zip(&self.tls) {
            server.take_over(new);
        }
        #[cfg(not(feature = "tls"))]
        let () = tls;
        self.control
            .configure(config, move |guard: &mut Guard| access.apply(guard))
            .await;
        Ok(fixed_but_changed(&self.started, settings))
    }
}

/// Reads the certificates of the listeners with these numbers again.
#[cfg(feature = "tls")]
fn certificates(
    wanted: &Settings,
    numbers: &[usize],
) -> Result<Vec<mqtt_transport::tls::TlsServer>, Error> {
    let listeners = wanted.numbered_listeners();
    let of = |number: &usize| {
        let found = listeners.iter().find(|(known, _)| known == number);
        let (_, listener) = found.ok_or(Error::Setting {
            name: "listener",
            why: "a listener that is in use is not there any more, which needs a new start",
        })?;
        listener.tls_server()
    };
    numbers.iter().map(of).collect()
}

/// Returns the names of the changed settings that a running broker cannot apply.
fn fixed_but_changed(started: &Settings, wanted: &Settings) -> Vec<&'static str> {
    let (before, after) = (started.common(), wanted.common());
    let listeners = |settings: &Settings| -> Vec<_> {
        let listeners = settings.listener.iter().flatten().cloned();
        listeners.map(without_files).collect()
    };
    let fixed = [
        ("bind", started.bind != wanted.bind),
        ("durability", started.durability != wanted.durability),
        ("health", started.health != wanted.health),
        ("web", started.web != wanted.web),
        ("store", started.store != wanted.store),
        ("store-limit", started.store_limit != wanted.store_limit),
        ("log-format", started.log_format != wanted.log_format),
        ("handshakes", started.handshakes != wanted.handshakes),
        (
            "identity-as-username",
            before.identity_as_username != after.identity_as_username,
        ),
        (
            "websocket-path",
            before.websocket_path != after.websocket_path,
        ),
        ("origin", before.origin != after.origin),
        ("proxy-from", before.proxy_from != after.proxy_from),
        (
            "forwarded-from",
            before.forwarded_from != after.forwarded_from,
        ),
        ("listener", listeners(started) != listeners(wanted)),
    ];
    let changed = fixed.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| name).collect()
}

/// Returns the settings without the files that are read again.
fn without_files(listener: ListenerSettings) -> ListenerSettings {
    ListenerSettings {
        user_file: None,
        allow_anonymous: None,
        cert: None,
        key: None,
        client_ca: None,
        client_certificate: None,
        crl: None,
        tls_minimum: None,
        ..listener
    }
}

/// The users and rules of the files in the settings.
#[derive(Debug)]
pub(crate) struct Access {
    /// The users of each listener by its number, and whether clients may connect without a user name; the first entry is for all
    /// listeners.
    logins: Vec<(usize, Option<Users>, Option<bool>)>,
    acl: Option<Acl>,
    password_queue: Option<usize>,
}

impl Access {
    pub(crate) fn read(settings: &Settings) -> Result<Self, Error> {
        let mut read: Vec<(PathBuf, Users)> = Vec::new();
        let mut logins = Vec::new();
        let all = (0, settings.common());
        let listeners = settings.numbered_listeners().into_iter();
        for (number, listener) in std::iter::once(all).chain(listeners) {
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
        Ok(Self {
            logins,
            acl: settings.acl_file.as_deref().map(Acl::read).transpose()?,
            password_queue: settings.password_queue,
        })
    }

    /// Checks that the addresses to which others can connect are protected, or explicitly open.
    pub(crate) fn protects(&self, public: &[(usize, SocketAddr)]) -> Result<(), Error> {
        for (number, address) in public {
            let own = self.logins.iter().rev().find(|(own, ..)| own == number);
            if let Some((_, None, None)) = own.or_else(|| self.logins.first()) {
                return Err(Error::Unprotected(*address));
            }
        }
        Ok(())
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
