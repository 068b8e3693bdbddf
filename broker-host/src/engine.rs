//! Opens the journal on the servers of the settings.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use mqtt_store::{Failure, Store};

#[cfg(feature = "nats")]
use crate::ListenerSettings;
use crate::logins::Logins;
#[cfg(feature = "nats")]
use crate::reload::logins_hash;
use crate::shards::Seat;
use crate::{Error, Settings};

/// A journal that this process owns.
#[cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "without an engine there is none")
)]
#[derive(Debug)]
pub(crate) struct OpenEngine {
    store: Option<Store>,
    place: Option<Place>,
    ownership: Ownership,
    logins: Arc<Logins>,
}

/// The place of this process, if several serve.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) seat: Seat,
    /// The key by which clients belong to processes.
    pub(crate) hash_key: u64,
}

impl OpenEngine {
    pub(crate) fn take_store(&mut self) -> Option<Store> {
        self.store.take()
    }

    /// Lets another process take over at once, because this one does not serve.
    pub(crate) fn close(&mut self) {
        if let Some(store) = self.store.take() {
            // Otherwise the key of this process ends by itself.
            let _ = store.close();
        }
    }

    pub(crate) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Returns who may connect at which listener, to be changed with the settings.
    pub(crate) fn logins(&self) -> Arc<Logins> {
        Arc::clone(&self.logins)
    }

    pub(crate) fn into_ownership(self) -> Ownership {
        self.ownership
    }
}

/// Whether this process owns its journal. Without an engine it always does.
#[derive(Default)]
pub(crate) struct Ownership(Option<Watch>);

/// Calls a function with the time until which this process owns the journal, at first and after each renewal, and returns when another
/// process owns it.
type Watch = Box<dyn FnOnce(TellUntil) -> Pin<Box<dyn Future<Output = Failure>>>>;

/// Takes the time until which this process owns the journal for certain.
pub(crate) type TellUntil = Box<dyn Fn(Instant)>;

impl Ownership {
    /// Calls `tell` with the time until which this process owns the journal for certain, at first and after each renewal, and returns
    /// when another process owns it.
    pub(crate) async fn lost(self, tell: TellUntil) -> Failure {
        match self.0 {
            Some(watch) => watch(tell).await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership").finish_non_exhaustive()
    }
}

#[cfg(feature = "nats")]
impl Settings {
    /// Waits until this process owns the journal, if there is an engine.
    pub(crate) async fn open_engine(&self) -> Result<Option<OpenEngine>, Error> {
        use mqtt_engine_nats::{Nats, OpenError};
        let Some(config) = self.engine_config() else {
            return Ok(None);
        };
        let name = format!("{} on NATS", config.shard);
        let opened = Nats::open(config, |notice| tell(&notice)).await;
        let nats = opened.map_err(|error| match error {
            OpenError::Failed(failure) => Error::StoreFailed(crate::StoreFailed(failure)),
            error => Error::Engine(Box::new(error)),
        })?;
        let logins = Arc::new(Logins::new(logins_hash(&self.numbered_listeners())));
        let place = self.place_among(&nats, &logins);
        match &place {
            None => tracing::info!(epoch = nats.epoch(), "this process owns the journal"),
            Some(Place { seat, .. }) => tracing::info!(
                epoch = nats.epoch(),
                shard = seat.own,
                shards = seat.count(),
                "this process owns the journal"
            ),
        }
        let ownership = Ownership(Some(watch(&nats)));
        let mut config = mqtt_store::Config::new(name);
        config.limit = self.store_limit;
        config.reserve = 0;
        Ok(Some(OpenEngine {
            store: Some(Store::with_engine(Box::new(nats), config)),
            place,
            ownership,
            logins,
        }))
    }

    #[cfg(unix)]
    fn place_among(&self, nats: &mqtt_engine_nats::Nats, logins: &Arc<Logins>) -> Option<Place> {
        let pipes = nats.pipes()?;
        let processes = crate::processes::Processes {
            own: nats.shard(),
            shards: nats.shards(),
            logins: Arc::clone(logins),
            patience: nats.lease(),
            redirects: self.engine_redirect.unwrap_or(false),
            pipes: Box::new(crate::nats_pipes::NatsPipes(pipes)),
        };
        Some(Place {
            seat: crate::shards::seat_among(processes),
            hash_key: nats.key(),
        })
    }

    #[cfg(not(unix))]
    fn place_among(&self, _: &mqtt_engine_nats::Nats, _: &Arc<Logins>) -> Option<Place> {
        None
    }

    /// Returns the addresses of the listeners for clients of other processes, as these read them; `None` if there is none.
    fn node_addresses(&self) -> Option<String> {
        let line = |(number, own): (usize, ListenerSettings)| {
            let address = own.node_address?;
            Some(format!("{number} {address}\n"))
        };
        let lines: String = self
            .numbered_listeners()
            .into_iter()
            .filter_map(line)
            .collect();
        (!lines.is_empty()).then_some(lines)
    }

    fn engine_config(&self) -> Option<mqtt_engine_nats::Config> {
        let seconds = |n: u32| std::time::Duration::from_secs(n.into());
        let mut config = mqtt_engine_nats::Config::new(
            self.engine
                .as_ref()?
                .as_str()
                .split(',')
                .map(str::to_owned)
                .collect(),
            self.node.clone().unwrap_or_default(),
        );
        if let Some(journal) = &self.engine_journal {
            config.shard.clone_from(journal);
        }
        config.shards = self.process_shards();
        // A relayed client has a pipe in two processes. Links have places of their own.
        let connections = self.config().connections;
        config.pipes = config.pipes.max(connections.saturating_mul(2));
        if let Some(bytes) = self.engine_pipe_bytes {
            config.pipe_bytes = bytes;
        }
        config.address = self.node_addresses();
        if let Some(replicas) = self.engine_replicas {
            config.replicas = replicas;
        }
        if let Some(lease) = self.engine_lease {
            config.lease = seconds(lease);
        }
        if let Some(patience) = self.engine_patience {
            config.patience = seconds(patience);
        }
        Some(config)
    }
}

#[cfg(feature = "nats")]
fn watch(nats: &mqtt_engine_nats::Nats) -> Watch {
    let (lost, mut certainty) = (nats.lost(), nats.certainty());
    Box::new(move |tell| {
        let tells = async move {
            loop {
                tell(certainty.until());
                certainty.renewed().await;
            }
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                failure = tells => failure,
                failure = lost.wait() => failure,
            }
        })
    })
}

/// Logs an event of the engine.
#[cfg(feature = "nats")]
fn tell(notice: &mqtt_engine_nats::Notice) {
    use mqtt_engine_nats::Notice::{Forbidden, Reserve, ReserveForAll, TakesOver};
    match notice {
        Forbidden(_) => tracing::error!("{notice}"),
        Reserve { .. } | ReserveForAll { .. } | TakesOver { .. } => tracing::info!("{notice}"),
        _ => tracing::warn!("{notice}"),
    }
}

#[cfg(not(feature = "nats"))]
impl Settings {
    /// Refuses an engine, because this build has none.
    pub(crate) async fn open_engine(&self) -> Result<Option<OpenEngine>, Error> {
        match self.engine {
            None => Ok(None),
            Some(_) => Err(Error::Setting {
                name: "engine",
                why: "is not part of this build: it needs the feature nats",
            }),
        }
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_relayed_clients_is_set() {
        let bytes = |text: &str| {
            let engine = format!("engine = 'nats://h'\nnode = 'a'\n{text}");
            let settings = toml::from_str::<Settings>(&engine).unwrap();
            settings.engine_config().unwrap().pipe_bytes
        };
        let sample: toml::Table = include_str!("../broker.toml")
            .replace("#engine-pipe-bytes", "engine-pipe-bytes")
            .parse()
            .unwrap();
        let default = sample["engine-pipe-bytes"].as_integer().unwrap();
        assert_eq!(bytes(""), usize::try_from(default).unwrap());
        assert_eq!(bytes("engine-pipe-bytes = 1000"), 1_000);
    }

    #[test]
    fn each_listener_has_its_own_address_or_that_of_all() {
        let addresses = |text| toml::from_str::<Settings>(text).unwrap().node_addresses();
        let two = "[[listener]]\nbind = ['h:1', 'h:2']\nnode-address = 'a:1'\n[[listener]]\nbind = ['h:3']\n";
        let own = Some("1 a:1\n2 a:1\n".to_owned());
        assert_eq!(addresses(two), own);
        let all = format!("node-address = 'b:2'\n{two}");
        assert_eq!(addresses(&all), own.map(|own| own + "3 b:2\n"));
        assert_eq!(addresses("bind = ['h:1']"), None);
    }
}
