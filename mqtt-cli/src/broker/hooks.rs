//! Who may connect and do what, and what is logged.

use mqtt_tokio::Control;
use mqtt_tokio::broker::{ClientInfo, ConnectionId, Ending, Hooks, Observation, Verdict};
use mqtt_tokio::proto::{Connect, ReasonCode, TopicFilter, TopicName};
use tracing::{debug, info, warn};

use super::acl::Acl;
use super::users::{Users, verify};
use crate::failure::Failure;

/// The hooks of `mqtt broker`.
#[derive(Debug)]
pub(crate) struct Guard {
    users: Option<Users>,
    acl: Option<Acl>,
    anonymous: bool,
    control: Control,
    /// Where the unguessable numbers come from when the system has none left: what was drawn at the start, and a count.
    seed: u128,
}

impl Guard {
    pub(crate) fn new(
        users: Option<Users>,
        acl: Option<Acl>,
        anonymous: bool,
        control: Control,
    ) -> Result<Self, Failure> {
        Ok(Self {
            users,
            acl,
            anonymous,
            control,
            seed: u128::from_le_bytes(super::random()?),
        })
    }
}

impl Hooks for Guard {
    fn unguessable(&mut self) -> u128 {
        self.seed = self.seed.wrapping_add(1);
        super::random().map_or(self.seed, u128::from_le_bytes)
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
