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
        let settings = self.with_threads(cores())?;
        let mut engine = self.open_engine().await?;
        if let Some(engine) = &mut engine {
            // The files may have changed in the meantime.
            let read = Access::read(self, &self.numbered_listeners());
            access = read.inspect_err(|_| engine.close())?;
        }
        let logins = access.logins_only();
        let store = engine.as_mut().and_then(OpenEngine::take_store);
        let place = engine.as_mut().and_then(OpenEngine::take_place);
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

#[cfg(all(test, unix, feature = "nats"))]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::{env, fs, process, thread};

    use mqtt_testing::peers::NatsServers;

    use super::*;

    /// Returns the settings of a process whose key lives for an hour.
    fn settings(servers: &NatsServers, more: &str) -> Settings {
        let url = servers.url();
        let engine = format!("engine = '{url}'\nnode = 'one'\nengine-replicas = 1");
        toml::from_str(&format!("{engine}\nengine-lease = 3600\n{more}")).unwrap()
    }

    /// Takes over the journal, which no process owns any more.
    async fn takes_over(servers: &NatsServers) {
        let next = settings(servers, "bind = 'mqtt://127.0.0.1:0'");
        let listens = timeout(Duration::from_secs(30), next.listen()).await;
        listens.expect("it waits for the key").unwrap();
    }

    /// The thread of the store ends with the host, and closes the journal: the next process does not wait for the end of the key.
    #[tokio::test]
    async fn a_process_that_cannot_listen_hands_its_journal_over() {
        let servers = NatsServers::start(1, "");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let settings = settings(&servers, &format!("bind = 'mqtt://{address}'"));
        let error = settings.listen().await.unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error}");
        takes_over(&servers).await;
    }

    /// The ACL file is valid at the start, and damaged when the process owns the journal.
    #[tokio::test]
    async fn a_process_whose_files_are_damaged_meanwhile_hands_its_journal_over() {
        let servers = NatsServers::start(1, "");
        let acl = env::temp_dir().join(format!("mqtt-acl-{}", process::id()));
        assert!(Command::new("mkfifo").arg(&acl).status().unwrap().success());
        let settings = settings(&servers, &format!("acl-file = '{}'", acl.display()));
        let writes = acl.clone();
        let writer = thread::spawn(move || {
            for text in ["topic readwrite #\n", "what\n"] {
                fs::write(&writes, text).unwrap();
                // If the reader has not seen the end of the first text before the file is open again, it reads both at the start.
                thread::yield_now();
            }
        });
        let error = settings.listen().await.unwrap_err();
        writer.join().unwrap();
        fs::remove_file(&acl).unwrap();
        assert!(matches!(error, Error::Acl { .. }), "{error}");
        takes_over(&servers).await;
    }
}
