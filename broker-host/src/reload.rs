//! Users, rules and limits that change while a broker runs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::guard::WAITING;
use crate::{Acl, Control, Error, Guard, Settings, Users};

/// Reads the files of a running broker again: [`Listening::reloader`](crate::Listening::reloader) makes it.
#[derive(Debug)]
pub struct Reloader {
    control: Control,
    /// Those of the start.
    started: Settings,
    /// An address that other machines can connect to.
    public: Option<SocketAddr>,
}

impl Reloader {
    pub(crate) const fn new(
        control: Control,
        started: Settings,
        public: Option<SocketAddr>,
    ) -> Self {
        Self {
            control,
            started,
            public,
        }
    }

    /// Reads the user file and the ACL file that `settings` name, and replaces users, rules and limits by the new ones, all in one
    /// step. Clients stay connected; what they may do is decided by the new rules, and limits that are told in CONNACK are those of
    /// the next connection. Returns the names of settings that are not as they were at the start and need a new start.
    ///
    /// # Errors
    /// As [`Settings::listen`]. Nothing has changed then.
    pub async fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, Error> {
        let wanted = settings.clone();
        let read = spawn_blocking(move || {
            wanted.check()?;
            let config = wanted.config();
            Ok::<_, Error>((Access::read(&wanted)?, config))
        });
        // It neither panics nor is it cancelled but by the end of the runtime.
        let Ok(read) = read.await else {
            return Ok(Vec::new());
        };
        let (access, config) = read?;
        access.protects(self.public)?;
        self.control
            .configure(config, move |guard: &mut Guard| access.apply(guard))
            .await;
        Ok(fixed_but_changed(&self.started, settings))
    }
}

/// Returns the names of the settings that a running broker cannot take over and that differ.
fn fixed_but_changed(started: &Settings, wanted: &Settings) -> Vec<&'static str> {
    let fixed = [
        ("bind", started.bind != wanted.bind),
        ("health", started.health != wanted.health),
        ("log-format", started.log_format != wanted.log_format),
    ];
    let changed = fixed.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(name, _)| name).collect()
}

/// Who may do what, as the files of some settings say.
#[derive(Debug)]
pub(crate) struct Access {
    users: Option<Users>,
    acl: Option<Acl>,
    allow_anonymous: Option<bool>,
    password_queue: Option<usize>,
}

impl Access {
    pub(crate) fn read(settings: &Settings) -> Result<Self, Error> {
        let mut users = settings.user_file.as_deref().map(Users::read).transpose()?;
        if let (Some(users), Some(seconds)) = (&mut users, settings.password_memory) {
            users.remember_for(Duration::from_secs(seconds.into()));
        }
        Ok(Self {
            users,
            acl: settings.acl_file.as_deref().map(Acl::read).transpose()?,
            allow_anonymous: settings.allow_anonymous,
            password_queue: settings.password_queue,
        })
    }

    /// Whether an address that others can connect to is protected, or meant to be open.
    pub(crate) fn protects(&self, public: Option<SocketAddr>) -> Result<(), Error> {
        match (public, &self.users, self.allow_anonymous) {
            (Some(address), None, None) => Err(Error::Unprotected(address)),
            _ => Ok(()),
        }
    }

    pub(crate) fn apply(self, guard: &mut Guard) {
        guard.anonymous = self.allow_anonymous.unwrap_or_else(|| self.users.is_none());
        guard.users = self.users;
        guard.set_password_queue(self.password_queue.unwrap_or(WAITING));
        guard.acl = self.acl;
    }
}
