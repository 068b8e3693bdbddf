//! The options of mosquitto's programs for TLS and proxies. They are parsed, and refused with a reason, until this program
//! has TLS.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, fail};

/// The options for TLS.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "TLS and proxy (not there yet)")]
pub(crate) struct TlsArgs {
    /// File with the certificates of trusted CAs
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Directory with the certificates of trusted CAs
    #[arg(long, value_name = "DIRECTORY")]
    capath: Option<PathBuf>,
    /// Certificate of the client
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Key of the client's certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Form of the key: pem or engine
    #[arg(long, value_name = "FORM")]
    keyform: Option<String>,
    /// Ciphers in OpenSSL's notation
    #[arg(long, value_name = "LIST")]
    ciphers: Option<String>,
    /// Version of TLS
    #[arg(long, value_name = "VERSION")]
    tls_version: Option<String>,
    /// Do not compare the name in the certificate with the host
    #[arg(long)]
    insecure: bool,
    /// Protocol of ALPN
    #[arg(long, value_name = "PROTOCOL")]
    tls_alpn: Option<String>,
    /// OpenSSL's engine
    #[arg(long, value_name = "ENGINE")]
    tls_engine: Option<String>,
    /// Hash of the engine's password
    #[arg(long, value_name = "HASH")]
    tls_engine_kpass_sha1: Option<String>,
    /// Trust the CAs of the system
    #[arg(long)]
    tls_use_os_certs: bool,
    /// Shared key in hex
    #[arg(long, value_name = "HEX")]
    psk: Option<String>,
    /// Identity of the shared key
    #[arg(long, value_name = "NAME")]
    psk_identity: Option<String>,
    /// SOCKS5 proxy: socks5h://[user[:password]@]host[:port]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Find the broker by an SRV record of DNS
    #[arg(short = 'S')]
    srv: bool,
}

impl TlsArgs {
    /// Refuses options that are not implemented. `--insecure` alone has no effect.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let asked = [
            ("--cafile", self.cafile.is_some()),
            ("--capath", self.capath.is_some()),
            ("--cert", self.cert.is_some()),
            ("--key", self.key.is_some()),
            ("--tls-use-os-certs", self.tls_use_os_certs),
        ];
        if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked) {
            return Err(fail(format!(
                "{name} needs TLS, which this program does not have yet"
            )));
        }
        if self.psk.is_some() || self.psk_identity.is_some() {
            return Err(fail("there is no TLS with a shared key (--psk)"));
        }
        if self.proxy.is_some() {
            return Err(fail("--proxy: this program cannot use a proxy yet"));
        }
        if self.srv {
            return Err(fail("-S: SRV records are not looked up"));
        }
        Ok(())
    }
}
