//! Opens the journal on the servers of the settings.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use mqtt_store::{Failure, Store};

use crate::{Error, Settings};

/// A journal that this process owns.
#[cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "without an engine there is none")
)]
#[derive(Debug)]
pub(crate) struct OpenEngine {
    store: Option<Store>,
    ownership: Ownership,
}

impl OpenEngine {
    pub(crate) fn take_store(&mut self) -> Option<Store> {
        self.store.take()
    }

    pub(crate) fn into_ownership(self) -> Ownership {
        self.ownership
    }
}

/// Whether this process owns its journal. Without an engine it always does.
#[derive(Default)]
pub(crate) struct Ownership(Option<Pin<Box<dyn Future<Output = Failure>>>>);

impl Ownership {
    /// Returns when another process owns the journal.
    pub(crate) async fn lost(self) -> Failure {
        match self.0 {
            Some(lost) => lost.await,
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
        tracing::info!(epoch = nats.epoch(), "this process owns the journal");
        let ownership = Ownership(Some(Box::pin(nats.lost().wait())));
        let mut config = mqtt_store::Config::new(name);
        config.limit = self.store_limit;
        config.reserve = 0;
        Ok(Some(OpenEngine {
            store: Some(Store::with_engine(Box::new(nats), config)),
            ownership,
        }))
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

/// Logs an event of the time before this process is the owner.
#[cfg(feature = "nats")]
fn tell(notice: &mqtt_engine_nats::Notice) {
    use mqtt_engine_nats::Notice::{Reserve, ReserveForAll, TakesOver};
    match notice {
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
