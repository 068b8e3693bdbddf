//! Hooks that ask the user file and the ACL file, and log what clients do.

use mqtt_broker::{ClientInfo, ConnectionId, Ending, Hooks, Observation, Verdict};
use mqtt_proto::{Connect, ReasonCode, TopicFilter, TopicName};
use tracing::{debug, info, warn};

use crate::random::random;
use crate::users::{Users, verify};
use crate::{Acl, Control, Error};

/// Hooks that ask a user file and an ACL file, and write to `tracing` what clients do: connections at INFO, what is refused at WARN,
/// subscriptions at DEBUG.
///
/// A password is compared on a thread of tokio's for blocking work; the broker serves others meanwhile.
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
    /// Who may connect with a user name; with `None`, everyone. Default: `None`.
    pub users: Option<Users>,
    /// Who may publish and subscribe to what; with `None`, everyone to everything. Default: `None`.
    pub acl: Option<Acl>,
    /// Whether clients may connect without a user name. Default: `true`.
    pub anonymous: bool,
    control: Control,
    /// The next number if the system gives none: one that was drawn at the start, and counted up.
    seed: u128,
}

impl Guard {
    /// Makes hooks that allow everything. `control` is that of the host they will be given to.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn new(control: Control) -> Result<Self, Error> {
        Ok(Self {
            users: None,
            acl: None,
            anonymous: true,
            control,
            seed: u128::from_le_bytes(random()?),
        })
    }
}

impl Hooks for Guard {
    fn unguessable(&mut self) -> u128 {
        self.seed = self.seed.wrapping_add(1);
        random().map_or(self.seed, u128::from_le_bytes)
    }

    fn connect(&mut self, connection: ConnectionId, connect: &Connect<'_>) -> Verdict {
        let Some(user) = connect.user_name else {
            return if self.anonymous {
                Verdict::Accept
            } else {
                Verdict::Refuse(ReasonCode::NotAuthorized)
            };
        };
        let Some(users) = &self.users else {
            return Verdict::Accept;
        };
        // Comparing takes long on purpose: on a thread of its own, while the broker goes on.
        let (hash, known) = users.hash_of(user);
        let password = connect.password.unwrap_or_default().to_vec();
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || {
            let verdict = if verify(&password, &hash) && known {
                Verdict::Accept
            } else {
                Verdict::Refuse(ReasonCode::BadUserNameOrPassword)
            };
            control.decide_blocking(connection, verdict);
        });
        Verdict::Later
    }

    fn may_publish(&mut self, client: &ClientInfo<'_>, topic: TopicName<'_>) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_publish(client, topic))
    }

    fn may_subscribe(&mut self, client: &ClientInfo<'_>, filter: TopicFilter<'_>) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_subscribe(client, filter))
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Connected {
                client, resumed, ..
            } => info!(
                client = client.client_id,
                user = client.user_name,
                version = %client.version,
                resumed,
                "connected"
            ),
            Observation::Ended {
                client_id, ending, ..
            } => match (client_id, ending) {
                (None, ending) => info!(why = %ending, "a connection ended without a client"),
                (Some(client), Ending::ByClient(reason)) => info!(client, %reason, "disconnected"),
                (Some(client), ending) => warn!(client, why = %ending, "disconnected"),
            },
            Observation::Subscribed {
                client,
                filter,
                reason,
            } => debug!(client = client.client_id, %filter, %reason, "subscribed"),
            Observation::PublishRefused {
                client,
                topic,
                reason,
            } => warn!(client = client.client_id, %topic, %reason, "publish refused"),
            Observation::Dropped {
                client_id,
                messages,
            } => debug!(client = client_id, messages, "dropped"),
            _ => {}
        }
    }
}
