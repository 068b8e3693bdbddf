//! Parses the options for TLS, WebSocket, Unix sockets and proxies, with the names and meanings of mosquitto's programs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use mqtt_adapter_core::srv::local_domain;
use mqtt_adapter_core::transport::proxy::ProxyOptions;
use mqtt_adapter_core::transport::tls::{KeyPair, Roots, Source, TlsVersion, psk_refused};
use mqtt_tokio::{DialOptions, Options, Scheme, SrvOptions};

use crate::failure::{Failure, fail};

/// The options for the layers between a socket and MQTT.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS, WebSocket and proxies")]
pub(crate) struct TlsArgs {
    /// Connect through this Unix socket; @NAME is an abstract one
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Use MQTT over WebSocket, like ws:// and wss://
    #[arg(long)]
    ws: bool,
    /// Path of WebSocket [default: /mqtt]
    #[arg(long, value_name = "PATH")]
    ws_path: Option<String>,
    /// Use TLS and trust the CAs in this file
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Use TLS and trust the CAs in the files of this directory
    #[arg(long, value_name = "DIRECTORY")]
    capath: Option<PathBuf>,
    /// Use TLS and accept only a server with one of the certificates in this file, whatever their names, dates and issuers are
    #[arg(long, value_name = "FILE")]
    pin: Option<PathBuf>,
    /// Use TLS and trust the CAs of the system, like mqtts:// and wss://
    #[arg(long)]
    tls_use_os_certs: bool,
    /// Certificate of the client
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Key of the client's certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Form of the key: pem
    #[arg(long, value_name = "FORM")]
    keyform: Option<String>,
    /// Refused: TLS uses secure ciphers of 1.2 and 1.3 only
    #[arg(long, value_name = "LIST")]
    ciphers: Option<String>,
    /// Lowest version of TLS: tlsv1.2 or tlsv1.3 [default: tlsv1.2]
    #[arg(long, value_name = "VERSION")]
    tls_version: Option<String>,
    /// Do not compare the name in the certificate with the host: any server with a certificate of the CA is accepted
    #[arg(long)]
    insecure: bool,
    /// Protocol of ALPN, such as mqtt
    #[arg(long, value_name = "PROTOCOL")]
    tls_alpn: Option<String>,
    /// Append the keys of TLS to the file that the environment variable SSLKEYLOGFILE names, for Wireshark: who has them can read
    /// the connection
    #[arg(long)]
    tls_key_log: bool,
    /// Refused: TLS is not implemented by OpenSSL
    #[arg(long, value_name = "ENGINE")]
    tls_engine: Option<String>,
    /// Refused: TLS is not implemented by OpenSSL
    #[arg(long, value_name = "HASH")]
    tls_engine_kpass_sha1: Option<String>,
    /// Refused: use client certificates
    #[arg(long, value_name = "HEX")]
    psk: Option<String>,
    /// Refused: use client certificates
    #[arg(long, value_name = "NAME")]
    psk_identity: Option<String>,
    /// Proxy: socks5h://[user[:password]@]host[:port], or http://.. for CONNECT [default: all_proxy, unless no_proxy contains the
    /// host]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The host is a domain whose SRV records name its brokers: _mqtt._tcp.HOST, with TLS _secure-mqtt._tcp.HOST. Without a host,
    /// the domain of this machine
    #[arg(short = 'S', long)]
    srv: bool,
    /// DNS server for -S. May be repeated [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS", requires = "srv", value_parser = dns_server)]
    dns_server: Vec<SocketAddr>,
}

/// Parses an address with or without a port.
fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().map(|address: IpAddr| (address, 53).into());
    address
        .or_else(|_| text.parse())
        .map_err(|_| "a DNS server is ADDRESS or ADDRESS:PORT".to_owned())
}

impl TlsArgs {
    /// Returns the host if the command line names none.
    pub(crate) fn default_host(&self) -> Result<String, Failure> {
        if !self.srv {
            return Ok("localhost".to_owned());
        }
        local_domain().map_err(|error| fail(format!("-S without a host: {error}")))
    }

    /// Sets the scheme, the path and, unless one is given, the port, and returns the settings of the layers.
    pub(crate) fn apply(
        &self,
        options: &mut Options,
        port: Option<u16>,
    ) -> Result<DialOptions, Failure> {
        self.refuse()?;
        if options.host.contains("://") {
            return Err(fail(
                "-h takes a host name or an address, no URL: see --help",
            ));
        }
        if let Some(path) = &self.unix {
            let path = path.to_str().ok_or_else(|| fail("--unix: no UTF-8"))?;
            (options.scheme, options.path) = (Scheme::Unix, path.to_owned());
            return Ok(DialOptions::default());
        }
        let before = options.scheme;
        let named = [&self.cafile, &self.capath, &self.pin];
        let asked = self.tls_use_os_certs || named.iter().any(|file| file.is_some());
        options.scheme = match (before.is_tls() || asked, before.is_websocket() || self.ws) {
            (false, false) => before,
            (true, false) => Scheme::Mqtts,
            (false, true) => Scheme::Ws,
            (true, true) => Scheme::Wss,
        };
        if options.scheme != before && port.is_none() && options.port == before.default_port() {
            options.port = options.scheme.default_port();
        }
        if let Some(path) = &self.ws_path {
            options.path.clone_from(path);
        }
        let mut layers = DialOptions::default();
        layers.srv = self.srv.then(|| {
            let mut srv = SrvOptions::default();
            srv.dns_servers.clone_from(&self.dns_server);
            srv
        });
        if options.scheme.is_tls() {
            self.tls(&mut layers)?;
        } else if self.cert.is_some() || self.key.is_some() {
            return Err(fail(
                "--cert and --key need TLS: give --cafile, --capath, --pin, --tls-use-os-certs or mqtts://",
            ));
        }
        layers.proxy = match self.proxy.as_deref() {
            Some(url) => Some(ProxyOptions::from_url(url).map_err(fail)?),
            None => ProxyOptions::from_environment(&options.host)
                .map_err(|error| fail(format!("all_proxy: {error}")))?,
        };
        Ok(layers)
    }

    fn tls(&self, layers: &mut DialOptions) -> Result<(), Failure> {
        let tls = &mut layers.tls;
        tls.roots = match (&self.cafile, &self.capath, &self.pin) {
            (None, None, None) => Roots::Platform,
            (Some(file), None, None) => Roots::Ca(Source::from(file)),
            (None, Some(directory), None) => Roots::CaDirectory(directory.clone()),
            (None, None, Some(_)) if self.tls_use_os_certs => {
                return Err(fail("--pin and --tls-use-os-certs: give one of them"));
            }
            (None, None, Some(file)) => Roots::Pinned(Source::from(file)),
            _ => return Err(fail("--cafile, --capath and --pin: give one of them")),
        };
        tls.identity = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some(KeyPair::new(certificate, key)),
            (None, None) => None,
            _ => return Err(fail("--cert and --key need each other")),
        };
        tls.insecure_accept_any_name = self.insecure;
        tls.key_log = self.tls_key_log;
        tls.minimum_version = match self.tls_version.as_deref() {
            None | Some("tlsv1.2") => TlsVersion::V12,
            Some("tlsv1.3") => TlsVersion::V13,
            Some(other) => {
                return Err(fail(format!(
                    "--tls-version {other}: tlsv1.2 and tlsv1.3 are spoken"
                )));
            }
        };
        tls.alpn = self
            .tls_alpn
            .iter()
            .map(|name| name.clone().into())
            .collect();
        // A file that cannot be used is reported before dialling.
        mqtt_adapter_core::transport::tls::TlsConnector::new(tls.clone()).map_err(fail)?;
        Ok(())
    }

    fn refuse(&self) -> Result<(), Failure> {
        if self.psk.is_some() || self.psk_identity.is_some() {
            return Err(fail(format!("--psk: {}", psk_refused())));
        }
        if self.ciphers.is_some() {
            return Err(fail(
                "--ciphers: they cannot be chosen; --tls-version tlsv1.3 leaves the newest only",
            ));
        }
        let is_engine = self.keyform.as_deref().is_some_and(|form| form != "pem");
        if is_engine || self.tls_engine.is_some() || self.tls_engine_kpass_sha1.is_some() {
            return Err(fail(
                "there are no engines of OpenSSL: keys are files of PEM",
            ));
        }
        let files = [&self.cafile, &self.capath, &self.pin, &self.cert, &self.key];
        let is_tls = self.tls_use_os_certs || files.iter().any(|file| file.is_some());
        if self.unix.is_some() && (is_tls || self.ws || self.proxy.is_some()) {
            return Err(fail(
                "--unix is plain MQTT, without TLS, WebSocket and proxies",
            ));
        }
        Ok(())
    }
}
