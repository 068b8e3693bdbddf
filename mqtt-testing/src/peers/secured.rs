//! Runs brokers that listen with TLS, with WebSocket and with both, and makes the settings of clients for them.

use std::path::PathBuf;
use std::sync::Arc;

use mqtt_adapter_core::{DialOptions, Options, Scheme};
use mqtt_broker_host::Layers;
use mqtt_transport::tls::{Roots, TlsServer, TlsServerOptions};
use mqtt_transport::websocket::WebSocketServerOptions;

use super::{Authority, HostedBroker, Issued, Mosquitto, Subject, free_port};

/// The schemes with a separate port.
const SCHEMES: [Scheme; 3] = [Scheme::Mqtts, Scheme::Ws, Scheme::Wss];

/// A running broker with a listener for each scheme except plain MQTT and Unix sockets; it ends when this is dropped.
#[derive(Debug)]
pub struct SecuredBroker {
    ports: [u16; 3],
    authority: Authority,
    /// The files of Mosquitto's certificate.
    folder: Option<PathBuf>,
    _broker: Broker,
}

#[derive(Debug)]
enum Broker {
    Own(#[allow(dead_code, reason = "it runs until it is dropped")] HostedBroker),
    Mosquitto(#[allow(dead_code, reason = "it runs until it is dropped")] Mosquitto),
}

impl SecuredBroker {
    /// Starts the broker of this workspace.
    ///
    /// # Panics
    /// As for [`HostedBroker::over`].
    #[must_use]
    pub fn own() -> Self {
        let (authority, issued) = certificate();
        let server = TlsServer::new(TlsServerOptions::new(issued.pair())).expect("a server");
        let server = Arc::new(server);
        let layers = SCHEMES.map(|scheme| {
            let mut layers = Layers::default();
            layers.tls = scheme.is_tls().then(|| Arc::clone(&server));
            layers.websocket = scheme.is_websocket().then(WebSocketServerOptions::default);
            layers
        });
        let broker = HostedBroker::over(layers.into());
        let ports = <[u16; 3]>::try_from(broker.layered.as_slice()).expect("one for each");
        Self {
            ports,
            authority,
            folder: None,
            _broker: Broker::Own(broker),
        }
    }

    /// Starts Mosquitto.
    ///
    /// # Panics
    /// As for [`Mosquitto::start`].
    #[must_use]
    pub fn mosquitto() -> Self {
        let (authority, issued) = certificate();
        let ports = SCHEMES.map(|_| free_port());
        let name = format!("mqtt-secured-{}-{}", std::process::id(), ports[0]);
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a directory for its certificate");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file of its certificate");
            path.display().to_string()
        };
        let certificate = file("certificate", &issued.certificate);
        let key = file("key", &issued.key);
        let mut extra = String::new();
        for (scheme, port) in SCHEMES.iter().zip(ports) {
            extra += &format!("listener {port} 127.0.0.1\n");
            if scheme.is_websocket() {
                extra += "protocol websockets\n";
            }
            if scheme.is_tls() {
                extra += &format!("certfile {certificate}\nkeyfile {key}\n");
            }
        }
        let broker = Mosquitto::start(&extra);
        Self {
            ports,
            authority,
            folder: Some(folder),
            _broker: Broker::Mosquitto(broker),
        }
    }

    /// Returns the authority of its certificate, which is for `localhost`.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the port for a scheme.
    ///
    /// # Panics
    /// The scheme has none.
    #[must_use]
    pub fn port(&self, scheme: Scheme) -> u16 {
        let at = SCHEMES.iter().position(|known| *known == scheme);
        self.ports[at.expect("a scheme with a port")]
    }

    /// Returns options and settings that reach the broker by this scheme. The port of the options does not change, because there
    /// may be a proxy.
    #[must_use]
    pub fn settings(&self, mut options: Options, scheme: Scheme) -> (Options, DialOptions) {
        options.scheme = scheme;
        options.host = "localhost".to_owned();
        let mut dial = DialOptions::default();
        dial.tls.roots = Roots::Ca(self.authority.source());
        (options, dial)
    }
}

impl Drop for SecuredBroker {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn certificate() -> (Authority, Issued) {
    let authority = Authority::new("brokers");
    let issued = authority.issue(&Subject::host("localhost"));
    (authority, issued)
}
