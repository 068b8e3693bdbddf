//! Stands for the connections between shards on systems without `epoll` and `kqueue`, where a broker is one shard.

use std::cell::RefCell;
use std::sync::Arc;

use mqtt_broker::{PlaceOf, Statistics};

use crate::shared::Shared;

#[derive(Debug)]
pub(crate) struct Whole;

impl Whole {
    pub(crate) fn statistics(&self, _: u8, now: Statistics) -> Statistics {
        now
    }

    pub(crate) fn take_place(&self, _: PlaceOf, _: usize) -> bool {
        true
    }

    pub(crate) fn free_place(&self, _: PlaceOf) {}
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) own: u8,
    pub(crate) whole: Arc<Whole>,
}

impl Seat {
    pub(crate) const fn count(&self) -> u8 {
        1
    }
}

pub(crate) fn seats(_: u8) -> Vec<Seat> {
    Vec::new()
}

pub(crate) async fn all_ready<H>(_: &RefCell<Shared<H>>) {}
