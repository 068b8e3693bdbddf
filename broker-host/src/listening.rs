//! A broker made of settings: its files are read, its addresses are bound.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::random::random;
use crate::reload::{Access, Reloader};
use crate::{Control, Error, Guard, Host, Settings, control, listen};

const DEFAULT_BIND: &str = "127.0.0.1:1883";

/// A broker that listens and does not accept connections yet: [`Settings::listen`] makes it, [`Self::run`] serves.
#[derive(Debug)]
pub struct Listening {
    host: Host<Guard>,
    listeners: Vec<TcpListener>,
    control: Control,
    settings: Settings,
}

impl Settings {
    /// Reads the files, binds the addresses and makes the broker. Must be called within a runtime of tokio whose timer is on.
    ///
    /// # Errors
    /// What [`Self::check`] returns, [`Error::Listen`], [`Error::Unprotected`] if other machines could connect, there is no user file, and
    /// [`allow_anonymous`](Self::allow_anonymous) is not set; what [`crate::Users::read`] and [`crate::Acl::read`] return.
    pub async fn listen(&self) -> Result<Listening, Error> {
        self.check()?;
        let addresses = self.addresses().await?;
        let access = Access::read(self)?;
        let public = addresses.iter().find(|address| !address.ip().is_loopback());
        access.protects(public.copied())?;
        let listeners = listeners(&addresses)?;
        let (control, commands) = control();
        let mut guard = Guard::new(control.clone())?;
        access.apply(&mut guard);
        let mut config = self.config();
        config.hash_key = u64::from_le_bytes(random()?);
        Ok(Listening {
            host: Host::new(config, guard, commands),
            listeners,
            control,
            settings: self.clone(),
        })
    }

    /// Resolves what is to be bound.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let default = [DEFAULT_BIND.to_owned()];
        let mut addresses = Vec::new();
        for bind in self.bind.as_deref().unwrap_or(&default) {
            let resolved = tokio::net::lookup_host(bind).await;
            addresses.extend(resolved.map_err(|source| Error::Listen {
                address: bind.clone(),
                source,
            })?);
        }
        Ok(addresses)
    }
}

fn listeners(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Error> {
    let bound = addresses.iter().map(|address| {
        let listener = listen(*address).map_err(|source| Error::Listen {
            address: address.to_string(),
            source,
        })?;
        info!(address = %listener.local_addr().unwrap_or(*address), "listening");
        Ok(listener)
    });
    bound.collect()
}

impl Listening {
    /// Returns the addresses that are bound; where a port of 0 was asked for, the one that the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
    }

    /// Returns what other tasks and threads speak to the broker with.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Returns what reads the files again while the broker runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        let public = self.addresses().find(|address| !address.ip().is_loopback());
        Reloader::new(self.control.clone(), self.settings.clone(), public)
    }

    /// Serves until `stop` is ready, and takes leave of the clients, as [`Host::run`] does.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            host,
            listeners,
            control,
            settings: _,
        } = self;
        drop(control);
        let stop = async {
            stop.await;
            warn!("shutting down");
        };
        host.run(listeners, stop).await;
    }
}
