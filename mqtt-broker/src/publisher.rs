//! The client that published a retained message. When the message is delivered, the broker asks again whether that client may
//! publish to the topic, so that a revoked right takes effect for retained messages as well.

use std::sync::Arc;

use mqtt_session::proto::Version;

use crate::broker::Broker;
use crate::hooks::{ClientInfo, Hooks};
use crate::keys::SessionKey;
use crate::message::Message;
use crate::session::Session;

/// The client that published a retained message. All retained messages that it published on one connection share it.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) client_id: Arc<str>,
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) version: Version,
}

impl Publisher {
    pub(crate) fn info(&self) -> ClientInfo<'_> {
        ClientInfo {
            client_id: &self.client_id,
            user_name: self.user_name.as_deref(),
            version: self.version,
        }
    }

    /// Returns how many bytes the publisher counts in the limit for retained messages. Each message counts them, as if each had a
    /// publisher of its own, because a client may leave one message only.
    pub(crate) fn size(&self) -> usize {
        let user_name = self.user_name.as_ref().map_or(0, |name| name.len());
        self.client_id
            .len()
            .saturating_add(user_name)
            .saturating_add(size_of::<Self>())
    }
}

impl Session {
    /// Returns its client as the publisher of a retained message.
    fn publisher(&mut self) -> Arc<Publisher> {
        let (client_id, user_name) = (&self.client_id, &self.user_name);
        let version = self.version;
        Arc::clone(self.publisher.get_or_insert_with(|| {
            Arc::new(Publisher {
                client_id: Arc::clone(client_id),
                user_name: user_name.clone(),
                version,
            })
        }))
    }
}

impl<H: Hooks> Broker<H> {
    /// Returns the client of a session as the publisher of a retained message.
    pub(crate) fn retained_by(&mut self, key: SessionKey) -> Option<Arc<Publisher>> {
        let session = self.sessions.get_mut(key)?;
        session.link.is_none().then(|| session.publisher())
    }

    /// Returns whether a retained message may be delivered: its publisher may still publish to its topic, or it has none because the
    /// host published it.
    pub(crate) fn source_is_allowed(
        &mut self,
        publisher: Option<&Publisher>,
        message: &Message,
    ) -> bool {
        let Some(publisher) = publisher.filter(|_| self.config.check_retained_source) else {
            return true;
        };
        let topic = message.publish().topic;
        self.hooks.may_publish(&publisher.info(), topic)
    }
}
