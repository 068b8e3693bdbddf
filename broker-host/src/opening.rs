//! Makes a host with the store of the settings.

use std::sync::Arc;

use mqtt_store::{Config, Durability, OpenError, Store};
use tracing::{info, warn};

use crate::division::directory;
use crate::engine::Place;
use crate::host::wall_clock;
use crate::random::random;
use crate::reload::Access;
use crate::shards::Seat;
use crate::{Control, Error, Guard, Host, Settings, control};

/// The words of the settings for the handling of a damaged store.
const REFUSE: &str = "refuse";
const MOVE_ASIDE: &str = "move-aside";
/// The least size in bytes of the log of a part of a store.
const LEAST_LOG: u64 = 2 << 20;

impl Settings {
    /// Returns whether the word for a damaged store is known.
    pub(crate) fn is_damaged_word_known(&self) -> bool {
        let damaged = self.store_damaged.as_deref();
        damaged.is_none_or(|word| [REFUSE, MOVE_ASIDE].contains(&word))
    }

    /// Returns whether a damaged store is moved aside.
    pub(crate) fn moves_aside(&self) -> bool {
        self.store_damaged.as_deref() == Some(MOVE_ASIDE)
    }

    /// Returns whether the word for the durability is known.
    pub(crate) fn knows_durability(&self) -> bool {
        let durability = self.durability.as_deref();
        durability.is_none_or(|word| word.parse::<Durability>().is_ok())
    }

    /// Returns the configuration of the store, if there is one.
    pub(crate) fn store_config(&self) -> Option<Config> {
        let mut config = Config::new(self.store.as_deref()?);
        if let Some(Ok(durability)) = self.durability.as_deref().map(str::parse) {
            config.durability = durability;
        }
        config.limit = self.store_limit;
        (config.durability != Durability::Off).then_some(config)
    }

    /// Makes the host with the store of an engine, or with that of the settings. Renames a damaged one of the settings if they say
    /// so.
    pub(crate) fn host(
        &self,
        access: Access,
        engine: Option<Store>,
    ) -> Result<(Host<Guard>, Control), Error> {
        if let Some(store) = engine {
            return self.host_with(access, Some(store));
        }
        match self.host_on_store(access) {
            Err(Error::Store(damaged @ OpenError::Damaged { .. })) if self.moves_aside() => {
                let config = self.store_config().unwrap_or_else(|| Config::new(""));
                let aside = Store::move_aside(&config).map_err(Error::Store)?;
                warn!(
                    why = %damaged,
                    moved = %aside.display(),
                    "all sessions and retained messages are lost"
                );
                self.host_on_store(Access::read(self, &self.numbered_listeners())?)
            }
            made => made,
        }
    }

    fn host_on_store(&self, access: Access) -> Result<(Host<Guard>, Control), Error> {
        let store = match self.store_config() {
            Some(config) => Store::open(config).map_err(Error::Store)?,
            None => None,
        };
        let made = self.host_with(access, store)?;
        self.log_store();
        Ok(made)
    }

    /// Logs where the state of the broker is.
    fn log_store(&self) {
        match self.store_config() {
            Some(Config {
                dir, durability, ..
            }) => {
                info!(dir = %dir.display(), %durability, "sessions, queues and retained messages are stored");
            }
            None => {
                info!(
                    "sessions, queues and retained messages are in memory and end with the process"
                );
            }
        }
    }

    /// Makes the host of one of several shards.
    pub(crate) fn host_of_shard(
        &self,
        access: Access,
        hash_key: u64,
        seat: Seat,
    ) -> Result<(Host<Guard>, Control), Error> {
        let (control, commands) = control();
        let mut guard = Guard::new(control.clone())?;
        access.of_shard(seat.count()).apply(&mut guard);
        guard.board = Some((seat.own, Arc::clone(&seat.whole)));
        let (own, count) = (seat.own, seat.count());
        let mut config = self.config().of_shard(count);
        (config.hash_key, config.wall_clock) = (hash_key, wall_clock());
        let host = Host::of_shard(config, guard, commands, seat);
        if let Some(mut config) = self.store_config() {
            config.dir = directory(&config.dir, own);
            config.limit = config.limit.map(|bytes| bytes.div_ceil(u64::from(count)));
            // The logs of all parts are reserved. A smaller one makes more transactions.
            config.log = config.log.div_ceil(u64::from(count)).max(LEAST_LOG);
            let store = Store::open(config).map_err(Error::Store)?;
            store.map_or(Ok(()), |store| host.restore(store).map_err(Error::Store))?;
        }
        if own == 0 {
            self.log_store();
        }
        Ok((host, control))
    }

    /// Returns the number of processes that serve clients.
    pub(crate) fn process_shards(&self) -> u8 {
        let shards = self.engine_shards.filter(|_| self.engine.is_some());
        shards.unwrap_or(1)
    }

    /// Returns the limits of this process, which has a session more for each other one that serves.
    pub(crate) fn config_of_process(&self) -> mqtt_broker::Config {
        let mut config = self.config();
        let links = usize::from(self.process_shards().saturating_sub(1));
        config.sessions = config.sessions.saturating_add(links);
        config
    }

    /// Makes the host of a process that serves a part of the clients.
    pub(crate) fn host_among(
        &self,
        access: Access,
        store: Option<Store>,
        place: Place,
    ) -> Result<(Host<Guard>, Control), Error> {
        let (control, commands) = control();
        let mut guard = Guard::new(control.clone())?;
        access.apply(&mut guard);
        let Place { seat, hash_key } = place;
        guard.board = Some((seat.own, Arc::clone(&seat.whole)));
        let mut config = self.config_of_process();
        (config.hash_key, config.wall_clock) = (hash_key, wall_clock());
        let host = Host::of_shard(config, guard, commands, seat);
        store.map_or(Ok(()), |store| host.restore(store).map_err(Error::Store))?;
        Ok((host, control))
    }

    fn host_with(
        &self,
        access: Access,
        store: Option<Store>,
    ) -> Result<(Host<Guard>, Control), Error> {
        let (control, commands) = control();
        let mut guard = Guard::new(control.clone())?;
        access.apply(&mut guard);
        let mut config = self.config();
        config.hash_key = u64::from_le_bytes(random()?);
        let host = match store {
            Some(store) => {
                Host::with_store(config, guard, commands, store).map_err(Error::Store)?
            }
            None => Host::new(config, guard, commands),
        };
        Ok((host, control))
    }
}
