//! Binds the sockets of the listeners in the settings, and prepares their protocols.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::own_access;
use crate::passed::Passed;
use crate::public::PublicAddress;
use crate::reload::Access;
use crate::{Error, Layers, Listener, ListenerSettings, Settings, TcpKeepAlive, listen};

/// Where a broker listens without the setting.
pub(crate) const DEFAULT_BIND: &str = "127.0.0.1:1883";

/// The protocols of a listener, from the scheme of its address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Scheme {
    name: &'static str,
    pub(crate) tls: bool,
    pub(crate) websocket: bool,
    /// Whether the first bytes of a connection decide on its protocols.
    pub(crate) any: bool,
    /// The default port.
    port: u16,
}

impl Scheme {
    const fn new(name: &'static str, tls: bool, websocket: bool, port: u16) -> Self {
        Self {
            name,
            tls,
            websocket,
            any: false,
            port,
        }
    }
}

const SCHEMES: [Scheme; 5] = [
    Scheme::new("mqtt", false, false, 1883),
    Scheme::new("mqtts", true, false, 8883),
    Scheme::new("ws", false, true, 80),
    Scheme::new("wss", true, true, 443),
    Scheme {
        any: true,
        ..Scheme::new("any", false, true, 1883)
    },
];

/// The address of a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Bind {
    Tcp {
        scheme: Scheme,
        /// Host and port.
        authority: String,
        /// The path of WebSocket, if the address has one.
        path: Option<String>,
    },
    Unix(PathBuf),
    /// A socket that was passed to this process.
    Passed {
        scheme: Scheme,
        /// Which, from 0.
        index: usize,
    },
}

impl Bind {
    /// Returns what is spoken there; `None` for a Unix socket, which has plain MQTT only.
    pub(crate) const fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Tcp { scheme, .. } | Self::Passed { scheme, .. } => Some(*scheme),
            Self::Unix(_) => None,
        }
    }

    /// Returns whether both are the same socket, whatever is spoken there.
    pub(crate) fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { authority, .. }, Self::Tcp { authority: own, .. }) => authority == own,
            (Self::Unix(path), Self::Unix(own)) => path == own,
            (Self::Passed { index, .. }, Self::Passed { index: own, .. }) => index == own,
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why| own_access::wrong(text, why);
        let (whole, _) = own_access::split(text)?;
        let (name, rest) = whole.split_once("://").unwrap_or(("mqtt", whole));
        if name == "unix" {
            return match rest {
                path if path.len() > 1 && path.starts_with(['/', '@']) => {
                    Ok(Self::Unix(path.into()))
                }
                _ => Err(wrong("needs a path: unix:///run/mqtt.socket")),
            };
        }
        let scheme = SCHEMES.into_iter().find(|scheme| scheme.name == name);
        let scheme = scheme
            .ok_or_else(|| wrong("begins with none of mqtt, mqtts, ws, wss, any and unix"))?;
        if let Some(index) = rest.strip_prefix(PASSED) {
            return match index.parse() {
                Ok(index) => Ok(Self::Passed { scheme, index }),
                Err(_) => Err(wrong("needs the number of a socket, from 0: systemd:0")),
            };
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if !scheme.websocket && !matches!(path, "" | "/") {
            return Err(wrong("has a path, which only ws, wss and any have"));
        }
        if authority.contains('@') {
            return Err(wrong("has a user, who belongs into a user file"));
        }
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let port = port.filter(|port| !port.ends_with(']'));
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(wrong("has a port that is not a number up to 65535"));
        }
        Ok(Self::Tcp {
            scheme,
            authority: match port.is_some() {
                true => authority.to_owned(),
                false => format!("{authority}:{}", scheme.port),
            },
            path: Some(path.to_owned()).filter(|path| !path.is_empty()),
        })
    }
}

/// The text in front of the number, in the address of a socket that was passed.
const PASSED: &str = "systemd:";

/// A Unix socket that is bound. Its file goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The bound listeners of the settings.
#[derive(Debug, Default)]
pub(crate) struct BoundListeners {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) files: Vec<SocketFile>,
    keep_alive: TcpKeepAlive,
    /// The addresses to which other machines can connect.
    pub(crate) public: Vec<PublicAddress>,
    /// The TLS servers by the number of the listener.
    #[cfg(feature = "tls")]
    pub(crate) tls: Vec<(usize, Arc<mqtt_transport::tls::TlsServer>)>,
}

impl Settings {
    /// Resolves and binds all addresses. Fails if other machines can connect to one that `access` does not protect.
    pub(crate) async fn bound(&self, access: &Access) -> Result<BoundListeners, Error> {
        let mut bound = BoundListeners {
            keep_alive: self.tcp_keep_alive(),
            ..BoundListeners::default()
        };
        let mut passed = Passed::new();
        for (number, settings) in self.numbered_listeners() {
            bound.add(number, &settings, access, &mut passed).await?;
        }
        Ok(bound)
    }
}

/// An address that is to be bound, and what is spoken there.
struct ListenAddress<'a> {
    number: usize,
    scheme: Scheme,
    settings: &'a ListenerSettings,
    layers: Arc<Layers>,
    text: &'a str,
}

impl BoundListeners {
    async fn add(
        &mut self,
        number: usize,
        settings: &ListenerSettings,
        access: &Access,
        passed: &mut Passed,
    ) -> Result<(), Error> {
        let bind = settings.address()?;
        let text = settings.bind.iter().flatten().next();
        let text = text.map_or(DEFAULT_BIND, String::as_str);
        let (scheme, path) = match &bind {
            Bind::Unix(path) => return self.add_unix(number, path, text),
            Bind::Tcp { scheme, path, .. } => (*scheme, path.clone()),
            Bind::Passed { scheme, .. } => (*scheme, None),
        };
        #[cfg_attr(
            not(feature = "tls"),
            allow(unused_mut, reason = "only TLS is added to them")
        )]
        let mut layers = settings.layers(scheme, path)?;
        if scheme.tls || (scheme.any && settings.cert.is_some()) {
            #[cfg(feature = "tls")]
            {
                let server = Arc::new(settings.tls_server()?);
                layers.tls = Some(Arc::clone(&server));
                self.tls.push((number, server));
            }
            #[cfg(not(feature = "tls"))]
            return Err(missing("bind", "TLS is not part of this build"));
        }
        let place = ListenAddress {
            number,
            scheme,
            settings,
            layers: Arc::new(layers),
            text,
        };
        match bind {
            Bind::Unix(_) => Ok(()),
            Bind::Tcp { authority, .. } => self.add_tcp(&place, &authority, access).await,
            Bind::Passed { index, .. } => {
                let listener = passed.take(index);
                let listener = listener.map_err(|source| listen_error(text, source))?;
                self.add_passed(&place, listener, access)
            }
        }
    }

    async fn add_tcp(
        &mut self,
        place: &ListenAddress<'_>,
        authority: &str,
        access: &Access,
    ) -> Result<(), Error> {
        let resolved = tokio::net::lookup_host(authority).await;
        let wrong = |source| listen_error(place.text, source);
        for address in resolved.map_err(wrong)? {
            // Asked before others can connect.
            self.allows(place, address, access)?;
            let listener = Listener::from(listen(address).map_err(wrong)?);
            self.push(place, listener)?;
        }
        Ok(())
    }

    fn add_passed(
        &mut self,
        place: &ListenAddress<'_>,
        listener: Listener,
        access: &Access,
    ) -> Result<(), Error> {
        if let Some(address) = listener.address() {
            self.allows(place, address, access)?;
        }
        self.push(place, listener)
    }

    /// Refuses an address that others can connect to unless it is protected.
    fn allows(
        &mut self,
        place: &ListenAddress<'_>,
        address: SocketAddr,
        access: &Access,
    ) -> Result<(), Error> {
        if address.ip().is_loopback() {
            return Ok(());
        }
        let public = PublicAddress::new(place.number, address, place.scheme.tls);
        self.public.push(public);
        access.protects(&public, place.settings)
    }

    fn push(&mut self, place: &ListenAddress<'_>, listener: Listener) -> Result<(), Error> {
        let kept = listener.keep_alive(self.keep_alive);
        let listener = kept
            .map_err(|source| listen_error(place.text, source))?
            .over(Arc::clone(&place.layers))
            .numbered(place.number);
        let protocol = place.scheme.name;
        match listener.address() {
            Some(address) => tracing::info!(protocol, %address, "listening"),
            None => tracing::info!(protocol, at = place.text, "listening"),
        }
        self.listeners.push(listener);
        Ok(())
    }

    #[cfg(unix)]
    fn add_unix(&mut self, number: usize, path: &Path, text: &str) -> Result<(), Error> {
        let wrong = |source| listen_error(text, source);
        let listener = if let Some(name) = path.to_str().and_then(|path| path.strip_prefix('@')) {
            listen_abstract(name).map_err(wrong)?
        } else {
            remove_stale(path).map_err(wrong)?;
            let listener = tokio::net::UnixListener::bind(path).map_err(wrong)?;
            self.files.push(SocketFile(path.to_owned()));
            listener
        };
        tracing::info!(protocol = "unix", path = %path.display(), "listening");
        let listener = Listener::from(listener).numbered(number);
        self.listeners.push(listener);
        Ok(())
    }

    #[cfg(not(unix))]
    fn add_unix(&mut self, _: usize, _: &Path, text: &str) -> Result<(), Error> {
        let none = std::io::Error::other("this system has no Unix sockets");
        Err(listen_error(text, none))
    }
}

/// Listens at an abstract name, which is not a file.
#[cfg(unix)]
fn listen_abstract(name: &str) -> std::io::Result<tokio::net::UnixListener> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
    #[cfg(not(target_os = "linux"))]
    Err(std::io::Error::other(format!(
        "only Linux has abstract sockets such as @{name}"
    )))
}

/// Removes the file of a socket without a listener, which a killed broker leaves.
#[cfg(unix)]
fn remove_stale(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn listen_error(address: &str, source: std::io::Error) -> Error {
    Error::Listen {
        address: address.to_owned(),
        source,
    }
}

#[cfg(not(all(feature = "proxy", feature = "tls", feature = "websocket")))]
fn missing(name: &'static str, why: &'static str) -> Error {
    Error::Setting { name, why }
}

impl ListenerSettings {
    /// Returns the address of a listener of [`Settings::numbered_listeners`].
    pub(crate) fn address(&self) -> Result<Bind, Error> {
        let text = self.bind.iter().flatten().next();
        Bind::parse(text.map_or(DEFAULT_BIND, String::as_str))
    }

    /// Returns the layers over the sockets, without TLS.
    #[cfg_attr(
        not(feature = "websocket"),
        allow(unused_variables, reason = "there are no paths then")
    )]
    fn layers(&self, scheme: Scheme, path: Option<String>) -> Result<Layers, Error> {
        #[allow(unused_mut, reason = "without stages nothing else is set")]
        let mut layers = Layers {
            by_first_bytes: scheme.any,
            ..Layers::default()
        };
        #[cfg(feature = "tls")]
        if let Some(name) = &self.identity_as_username {
            let mut parts = mqtt_transport::tls::IdentityPart::ALL.into_iter();
            layers.user_from = parts.find(|part| part.to_string() == *name);
            if layers.user_from.is_none() {
                return Err(Error::Setting {
                    name: "identity-as-username",
                    why: "must be common-name, subject, dns-name, email or uri",
                });
            }
        }
        #[cfg(feature = "websocket")]
        {
            layers.websocket = scheme.websocket.then(|| self.websocket(path));
            layers.forwarded_from = networks("forwarded-from", self.forwarded_from.as_deref())?;
        }
        #[cfg(not(feature = "websocket"))]
        if scheme.websocket {
            return Err(missing("bind", "WebSocket is not part of this build"));
        }
        #[cfg(feature = "proxy")]
        {
            layers.proxy_from = networks("proxy-from", self.proxy_from.as_deref())?;
        }
        #[cfg(not(feature = "proxy"))]
        if self.proxy_from.is_some() {
            let why = "is not part of this build: it needs the feature proxy";
            return Err(missing("proxy-from", why));
        }
        Ok(layers)
    }

    #[cfg(feature = "websocket")]
    fn websocket(&self, path: Option<String>) -> mqtt_transport::websocket::WebSocketServerOptions {
        use mqtt_transport::websocket::{Origins, WebSocketServerOptions};
        let mut options = WebSocketServerOptions::default();
        if let Some(path) = path.or_else(|| self.websocket_path.clone()) {
            options.path = Some(path).filter(|path| path != "*");
        }
        if let Some(origins) = &self.origin {
            let (none, listed): (Vec<String>, Vec<String>) =
                origins.iter().cloned().partition(|origin| origin == "none");
            options.origins = match none.is_empty() {
                true => Origins::Only(listed),
                false => Origins::ThoseOrNone(listed),
            };
        }
        options
    }

    /// Reads the certificates and keys.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_server(&self) -> Result<mqtt_transport::tls::TlsServer, Error> {
        use mqtt_transport::tls::{ClientCertificate, KeyPair, Source, TlsServerOptions};
        use mqtt_transport::tls::{TlsServer, TlsVersion};
        let wrong = |name, why| Error::Setting { name, why };
        let certificates = self.cert.as_deref().unwrap_or_default();
        let keys = self.key.as_deref().unwrap_or_default();
        if certificates.is_empty() {
            return Err(wrong("cert", "mqtts and wss need a certificate"));
        }
        if certificates.len() != keys.len() {
            return Err(wrong("key", "needs one file for each file of cert"));
        }
        let mut options = TlsServerOptions::default();
        options.identities = certificates
            .iter()
            .zip(keys)
            .map(|(certificate, key)| KeyPair::new(certificate, key))
            .collect();
        options.client_ca = self.client_ca.as_deref().map(Source::from);
        options.client_certificate = match (&self.client_ca, self.client_certificate.as_deref()) {
            (None, None) => ClientCertificate::NotAsked,
            (None, Some(_)) => return Err(wrong("client-certificate", "needs client-ca")),
            (Some(_), None | Some("required")) => ClientCertificate::Required,
            (Some(_), Some("optional")) => ClientCertificate::Optional,
            (Some(_), Some(_)) => {
                return Err(wrong("client-certificate", "must be required or optional"));
            }
        };
        let lists = self.crl.iter().flatten();
        options.revocation_lists = lists.map(Source::from).collect();
        let protocols = self.alpn.iter().flatten();
        options.alpn = protocols.map(|name| name.clone().into_bytes()).collect();
        options.minimum_version = match self.tls_minimum.as_deref() {
            None | Some("1.2") => TlsVersion::V12,
            Some("1.3") => TlsVersion::V13,
            Some(_) => return Err(wrong("tls-minimum", "must be 1.2 or 1.3")),
        };
        TlsServer::new(options).map_err(Error::Tls)
    }
}

#[cfg(any(feature = "proxy", feature = "websocket"))]
fn networks(name: &'static str, texts: Option<&[String]>) -> Result<Vec<crate::Network>, Error> {
    let texts = texts.unwrap_or_default().iter();
    let parsed: Result<_, _> = texts.map(|text| text.parse()).collect();
    parsed.map_err(|_| Error::Setting {
        name,
        why: "must be addresses, or ranges such as 10.0.0.0/8",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(scheme: usize, authority: &str, path: Option<&str>) -> Bind {
        Bind::Tcp {
            scheme: SCHEMES[scheme],
            authority: authority.to_owned(),
            path: path.map(str::to_owned),
        }
    }

    #[test]
    fn an_address_may_have_a_scheme_a_port_and_a_path() {
        let bind = |text| Bind::parse(text).unwrap();
        assert_eq!(bind("127.0.0.1:1"), tcp(0, "127.0.0.1:1", None));
        assert_eq!(bind("localhost"), tcp(0, "localhost:1883", None));
        assert_eq!(bind("[::1]"), tcp(0, "[::1]:1883", None));
        assert_eq!(bind("[::1]:7"), tcp(0, "[::1]:7", None));
        assert_eq!(bind("mqtts://0.0.0.0"), tcp(1, "0.0.0.0:8883", None));
        assert_eq!(bind("ws://h:9/a/b"), tcp(2, "h:9", Some("/a/b")));
        assert_eq!(bind("wss://h"), tcp(3, "h:443", None));
        assert_eq!(bind("unix:///run/a"), Bind::Unix("/run/a".into()));
        for wrong in ["http://h:1", "mqtt://h:1/a", "h:x", "unix://", "unix://a"] {
            assert!(
                matches!(Bind::parse(wrong), Err(Error::Bind { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_error_does_not_show_a_password() {
        for wrong in [
            "mqtt://u:secret@h:1",
            "u:secret@h",
            "foo://u:secret@h:1",
            "mqtt://u:secret",
            "u:secret",
            "unix://u:secret@/run/a",
            "mqtt://u:secret@h?what=ever",
        ] {
            let error = Bind::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
