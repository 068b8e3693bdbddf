//! Holds the layers between the sockets of a listener and MQTT.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mqtt_transport::{Error, Stack};

#[cfg(any(feature = "proxy", feature = "websocket"))]
use crate::network::Network;

/// The layers between the sockets of a listener and MQTT. By default there are none. Each field exists with the feature of its
/// name.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Layers {
    /// TLS. Its certificates can be read again while the listener is in use.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<mqtt_transport::tls::TlsServer>>,
    /// The part of the client's certificate that is its user name. A client without a certificate has the user name of CONNECT; a
    /// certificate without this part is refused. Default: none.
    #[cfg(feature = "tls")]
    pub user_from: Option<mqtt_transport::tls::IdentityPart>,
    /// WebSocket, above TLS if both are set.
    #[cfg(feature = "websocket")]
    pub websocket: Option<mqtt_transport::websocket::WebSocketServerOptions>,
    /// Whether the first bytes of a connection decide which of TLS, WebSocket and plain MQTT it uses, as far as these are set.
    /// With `false` (default) each connection uses all layers that are set.
    pub by_first_bytes: bool,
    /// Addresses of proxies whose header `X-Forwarded-For` contains the address of the client, with WebSocket.
    #[cfg(feature = "websocket")]
    pub forwarded_from: Vec<Network>,
    /// Addresses of proxies that begin each connection with a header of the PROXY protocol, of version 1 or 2.
    #[cfg(feature = "proxy")]
    pub proxy_from: Vec<Network>,
}

impl Layers {
    /// Returns whether bytes pass unchanged.
    pub(crate) fn is_plain(&self) -> bool {
        if self.by_first_bytes {
            return false;
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return false;
        }
        #[cfg(feature = "websocket")]
        if self.websocket.is_some() {
            return false;
        }
        #[cfg(feature = "proxy")]
        if !self.proxy_from.is_empty() {
            return false;
        }
        true
    }

    /// Returns whether the address is that of a proxy that sends the addresses of its clients.
    #[cfg_attr(
        not(any(feature = "proxy", feature = "websocket")),
        allow(
            clippy::unused_self,
            unused_variables,
            reason = "there are no proxies then"
        )
    )]
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        #[cfg(feature = "websocket")]
        if self.websocket.is_some() && self.forwarded_from.iter().any(|one| one.contains(address)) {
            return true;
        }
        self.has_proxy_header(address)
    }

    /// Returns whether the address is that of a proxy that begins each connection with a header.
    #[cfg_attr(
        not(feature = "proxy"),
        allow(
            clippy::unused_self,
            unused_variables,
            reason = "there are no proxies then"
        )
    )]
    pub(crate) fn has_proxy_header(&self, address: IpAddr) -> bool {
        #[cfg(feature = "proxy")]
        if self.proxy_from.iter().any(|one| one.contains(address)) {
            return true;
        }
        false
    }

    /// Makes the stages of a connection that was accepted from an address.
    #[cfg_attr(
        not(any(feature = "proxy", feature = "tls", feature = "websocket")),
        allow(
            clippy::unnecessary_wraps,
            unused_variables,
            reason = "there are no stages then"
        )
    )]
    pub(crate) fn stack(&self, from: Option<SocketAddr>) -> Result<Stack, Error> {
        #[allow(unused_mut, reason = "without stages it stays empty")]
        let mut stack = Stack::new();
        #[cfg(any(feature = "proxy", feature = "websocket"))]
        let is_from = |networks: &[Network]| {
            from.is_some_and(|from| networks.iter().any(|one| one.contains(from.ip())))
        };
        #[cfg(feature = "proxy")]
        if is_from(&self.proxy_from) {
            stack.push(mqtt_transport::proxy::ProxyStage::header());
        }
        #[cfg(feature = "websocket")]
        let websocket = self.websocket.clone().map(|mut options| {
            options.trust_forwarded = is_from(&self.forwarded_from);
            options
        });
        if self.by_first_bytes {
            #[allow(unused_mut, reason = "only stages are added to them")]
            let mut options = mqtt_transport::AnyServerOptions::default();
            #[cfg(feature = "tls")]
            options.tls.clone_from(&self.tls);
            #[cfg(feature = "websocket")]
            {
                options.websocket = websocket;
            }
            stack.push(mqtt_transport::AnyServer::new(options));
            return Ok(stack);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            stack.push(tls.stage()?);
        }
        #[cfg(feature = "websocket")]
        if let Some(options) = websocket {
            stack.push(mqtt_transport::websocket::WebSocketServer::new(options));
        }
        Ok(stack)
    }

    /// Returns the user that a certificate names, if this listener takes users from certificates.
    #[cfg_attr(
        not(feature = "tls"),
        allow(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            unused_variables,
            reason = "there are no certificates then"
        )
    )]
    pub(crate) fn user(&self, told: &mqtt_transport::Peer) -> Result<Option<Arc<str>>, Error> {
        #[cfg(feature = "tls")]
        if let (Some(part), Some(identity)) = (self.user_from, &told.identity) {
            return identity.part(part).map(|user| Some(user.into()));
        }
        Ok(None)
    }
}
