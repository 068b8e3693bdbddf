//! Handles enhanced authentication (5, section 4.12), and decisions that the host makes later.

use mqtt_session::proto::{Auth, Properties, Property, ReasonCode};
use mqtt_session::{Instant, Refused};

use crate::broker::Broker;
use crate::connection::ConnectionId;
use crate::hooks::{Hooks, Verdict};
use crate::keys::ConnectionKey;

impl<H: Hooks> Broker<H> {
    pub(crate) fn on_auth(&mut self, id: ConnectionId, auth: &Auth<'_>, now: Instant) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        let method = auth.properties.authentication_method();
        let data = auth.properties.authentication_data();
        if connection.session.is_none() {
            let packet = connection
                .extra
                .as_ref()
                .and_then(|extra| extra.connect.clone());
            let Some(packet) = packet else { return };
            if let Some(connect) = crate::connect::decode(&packet) {
                let same = method == connect.properties.authentication_method();
                // 5 [MQTT-4.12.0-5]
                let Some(method) = method.filter(|_| same) else {
                    self.refuse(id.index, ReasonCode::ProtocolError, now);
                    return;
                };
                let verdict = self.hooks.authenticate(id, method, data);
                self.decided(id.index, &connect, &packet, verdict, now);
            }
            return;
        }
        let known = connection
            .extra
            .as_ref()
            .and_then(|extra| extra.method.as_deref());
        // 5 [MQTT-4.12.1-1]
        let Some(method) = method.filter(|method| known == Some(*method)) else {
            self.close(id.index, ReasonCode::ProtocolError, now);
            return;
        };
        let verdict = self.hooks.authenticate(id, method, data);
        self.authenticated_again(id.index, method, &verdict, now);
    }

    pub(crate) fn authenticated_again(
        &mut self,
        index: ConnectionKey,
        method: &str,
        verdict: &Verdict,
        now: Instant,
    ) {
        let (reason, data) = match verdict {
            Verdict::Accept | Verdict::AcceptAs(_) => (ReasonCode::Success, None),
            Verdict::AcceptWith(data) => (ReasonCode::Success, Some(&data[..])),
            // 5 [MQTT-4.12.0-2]
            Verdict::Continue(data) => (ReasonCode::ContinueAuthentication, Some(&data[..])),
            Verdict::Later => return,
            // 5 [MQTT-4.12.1-2]
            Verdict::Refuse(reason) => return self.close(index, *reason, now),
        };
        if self.send_auth(index, reason, method, data).is_err() {
            self.close(index, ReasonCode::QuotaExceeded, now);
        }
    }

    pub(crate) fn send_auth(
        &mut self,
        index: ConnectionKey,
        reason: ReasonCode,
        method: &str,
        data: Option<&[u8]>,
    ) -> Result<(), Refused> {
        let mut properties = vec![Property::AuthenticationMethod(method)];
        properties.extend(data.map(Property::AuthenticationData));
        let auth = Auth {
            reason,
            properties: Properties::from(&properties[..]),
        };
        self.mark_ready(index);
        match self.connections.get_mut(index) {
            Some(connection) => connection.server.authenticate(&auth),
            None => Ok(()),
        }
    }

    /// Applies the host's decision after a hook returned [`Verdict::Later`]. Does nothing if the connection has ended.
    pub fn decide(&mut self, id: ConnectionId, verdict: Verdict, now: Instant) {
        self.begin(now);
        let Some(connection) = self.connection(id).filter(|c| !c.ended) else {
            return;
        };
        let extra = connection.extra.as_ref();
        if connection.session.is_some() {
            let method = extra.and_then(|extra| extra.method.clone());
            if let Some(method) = method {
                self.authenticated_again(id.index, &method, &verdict, now);
            }
            return;
        }
        let packet = extra.and_then(|extra| extra.connect.clone());
        if let Some(packet) = packet
            && let Some(connect) = crate::connect::decode(&packet)
        {
            self.decided(id.index, &connect, &packet, verdict, now);
            // Packets that followed CONNECT may be handled now.
            self.mark_ready(id.index);
            self.settle();
        }
    }
}
