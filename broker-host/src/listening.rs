//! Makes a broker from settings: reads its files and binds its addresses.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::time::Duration;

use mqtt_store::{Config, OpenError, Store};
use tokio::time::timeout;
use tracing::{error, warn};

use crate::binding::{BoundListeners, SocketFile};
use crate::engine::{OpenEngine, Ownership, Place};
use crate::host::StoreFailed;
use crate::reload::{Access, Reloader};
use crate::threads::{Threads, cores};
use crate::{Control, Error, Guard, Host, Listener, Settings, division};

/// How long the other threads may take to end after a panic; `mqtt broker` ends in any case one second after its message.
const GOODBYE: Duration = Duration::from_secs(1);

/// A broker that listens but does not accept connections yet. [`Settings::listen`] makes it, and [`Self::run`] serves.
#[derive(Debug)]
pub struct Listening {
    host: Host<Guard>,
    listeners: Vec<Listener>,
    files: Vec<SocketFile>,
    control: Control,
    reloader: Reloader,
    threads: Threads,
    ownership: Ownership,
}

impl Settings {
    /// Reads the files, binds the addresses and makes the broker. Must be called within a tokio runtime whose timer is enabled.
    ///
    /// With an engine, first waits until no other process serves; until then nothing is bound.
    ///
    /// # Errors
    /// The errors of [`Self::check`], [`crate::Users::read`] and [`crate::Acl::read`]; [`Error::Bind`], [`Error::Listen`],
    /// `Error::Tls` (with the feature `tls`) and [`Error::Store`]; [`Error::Unprotected`] if other machines could connect, there is no
    /// user file, and [`allow_anonymous`](Self::allow_anonymous) is not set.
    pub async fn listen(&self) -> Result<Listening, Error> {
        self.check()?;
        self.warn_of_unused();
        let mut access = Access::read(self, &self.numbered_listeners())?;
        let mut engine = self.open_engine().await?;
        if engine.is_some() {
            // The files may have changed in the meantime.
            access = Access::read(self, &self.numbered_listeners())?;
        }
        let logins = access.logins_only();
        let store = engine.as_mut().and_then(OpenEngine::take_store);
        let place = engine.as_mut().and_then(OpenEngine::take_place);
        let settings = self.with_threads(cores())?;
        // The store first: a broker that cannot start with it must not say that it listens.
        let (host, control, threads) = settings.hosts(access, (store, place)).await?;
        let bound = self.bound(&logins).await?;
        if let Some(most) = self.handshakes {
            host.limit_handshakes(most);
        }
        let logins = engine.as_ref().map(OpenEngine::logins).unwrap_or_default();
        let compared = (settings.shards(), logins);
        let reloader = Reloader::new(control.clone(), self.clone(), compared, &bound);
        let BoundListeners {
            listeners, files, ..
        } = bound;
        Ok(Listening {
            host,
            listeners,
            files,
            control,
            reloader,
            threads,
            ownership: engine.map(OpenEngine::into_ownership).unwrap_or_default(),
        })
    }
}

/// The host of the present thread, the control of all hosts, and the threads of the others.
type Hosts = (Host<Guard>, Control, Threads);

/// The store of an engine, and the place of this process if several serve.
type Engine = (Option<Store>, Option<Place>);

impl Settings {
    /// Makes the hosts. If a part of the store of several threads is damaged, moves all parts aside if the settings say so.
    async fn hosts(&self, access: Access, engine: Engine) -> Result<Hosts, Error> {
        let hash_key = self.division()?;
        match self.hosts_on_parts(access, engine, hash_key).await {
            Err(Error::Store(damaged @ OpenError::Damaged { .. }))
                if self.moves_aside() && self.shards() > 1 =>
            {
                warn!(why = %damaged, "all parts of the store are moved aside");
                let config = self.store_config().unwrap_or_else(|| Config::new(""));
                division::move_aside(&config)?;
                let access = Access::read(self, &self.numbered_listeners())?;
                self.hosts_on_parts(access, (None, None), hash_key).await
            }
            made => made,
        }
    }

    async fn hosts_on_parts(
        &self,
        access: Access,
        (store, place): Engine,
        hash_key: u64,
    ) -> Result<Hosts, Error> {
        let parts = self.store_config().filter(|_| self.shards() > 1);
        if let Some(config) = &parts {
            division::check_parts(config, self.shards())?;
        }
        let (threads, seat, others) = Threads::start(self, &access, hash_key).await?;
        let made = match (seat, place) {
            (Some(seat), _) => self.host_of_shard(access, hash_key, seat),
            (None, Some(place)) => self.host_among(access, store, place),
            (None, None) => self.host(access, store),
        };
        let made = made.and_then(|made| {
            let noted = parts.as_ref().map(division::parts_are_made);
            noted.unwrap_or(Ok(())).map(|()| made)
        });
        match made {
            Ok((host, control)) => Ok((host, control.with(others), threads)),
            Err(error) => {
                // The threads have their parts of the store open.
                let _ = threads.join().await;
                Err(error)
            }
        }
    }
}

impl Listening {
    /// Returns the bound addresses. For a port of 0, the address has the port that the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter_map(Listener::address)
    }

    /// Returns the control by which other tasks and threads send commands to the broker.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Returns a reloader, which reads the files again while the broker runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Serves until `stop` is ready, and ends the connections as [`Host::run`] does.
    ///
    /// # Errors
    /// [`Error::StoreFailed`].
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let Self {
            host,
            listeners,
            files,
            control,
            reloader,
            mut threads,
            ownership,
        } = self;
        drop((control, reloader));
        let mut lost = None;
        let lost_ownership = ownership.lost(host.tell_certainty());
        let stop = async {
            tokio::select! {
                () = stop => {}
                failure = lost_ownership => {
                    error!(why = %failure, "this process is not the owner any more; all connections end");
                    lost = Some(Error::StoreFailed(StoreFailed(failure)));
                }
                failure = threads.any_ended() => {
                    error!(why = %failure, "a part of the clients is not served; all connections end");
                    lost = Some(failure);
                }
            }
            warn!("shutting down");
            threads.stop();
        };
        if let Err(payload) = host.serve(listeners, stop).await {
            // The clients of the other threads get a goodbye as well.
            let _ = timeout(GOODBYE, threads.join()).await;
            resume_unwind(payload);
        }
        drop(files);
        let closed = host.close().map_err(Error::StoreFailed);
        let others = threads.join().await;
        match lost {
            Some(failure) => Err(failure),
            None => closed.and(others),
        }
    }
}
