//! `mqtt broker`: settings, users and rules for the broker core, and its host's listeners.

mod acl;
mod hooks;
mod settings;
mod users;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mqtt_tokio::{Host, control};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::failure::{Failure, fail};
use crate::link;
use settings::Settings;
use users::Users;

pub(crate) use hooks::Guard;
pub(crate) use users::Passwd;

/// Runs a broker, until Ctrl-C or SIGTERM.
///
/// Serves MQTT 3.1, 3.1.1 and 5. Sessions, queues and retained messages are in memory and end with it.
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// Configuration file (TOML); its keys are the long names of these options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const DEFAULT_BIND: &str = "127.0.0.1:1883";

impl Broker {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let settings = match &self.config {
            Some(path) => self.settings.or(Settings::read(path)?),
            None => self.settings,
        };
        start_log(settings.log.as_deref().unwrap_or("info"))?;
        let default = [DEFAULT_BIND.to_owned()];
        let mut addresses = Vec::new();
        for bind in settings.bind.as_deref().unwrap_or(&default) {
            let wrong = |error| fail(format!("cannot bind {bind}: {error}"));
            addresses.extend(tokio::net::lookup_host(bind).await.map_err(wrong)?);
        }
        let users = settings.user_file.as_deref().map(Users::read).transpose()?;
        let acl = settings
            .acl_file
            .as_deref()
            .map(acl::Acl::read)
            .transpose()?;
        let public = addresses.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), None, None) = (public, &users, settings.allow_anonymous) {
            return Err(fail(format!(
                "everyone could connect to {address}: give --user-file, or --allow-anonymous if that is meant"
            )));
        }
        let anonymous = settings.allow_anonymous.unwrap_or_else(|| users.is_none());
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(listen(address)?);
            let bound = listeners.last().and_then(|l| l.local_addr().ok());
            info!(address = %bound.unwrap_or(address), "listening");
        }
        let mut config = settings.config();
        config.hash_key = u64::from_le_bytes(random()?);
        let (control, commands) = control();
        let guard = Guard::new(users, acl, anonymous, control)?;
        let host = Host::new(config, guard, commands);
        host.run(listeners, async {
            link::interrupted().await;
            warn!("shutting down");
        })
        .await;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    };
    socket
        .and_then(|socket| {
            // A broker that is started again need not wait for the connections of the last.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(1_024)
        })
        .map_err(|error| fail(format!("cannot bind {address}: {error}")))
}

fn start_log(level: &str) -> Result<(), Failure> {
    let level: tracing::Level = level.parse().map_err(|_| {
        fail(format!(
            "log {level:?}: must be error, warn, info, debug or trace"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

/// Bytes nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| fail(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}
