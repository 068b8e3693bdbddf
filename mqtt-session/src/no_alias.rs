//! Without the feature `aliases` there are none: what there is to remember of them takes no room.

use core::marker::PhantomData;

use mqtt_proto::{TopicAlias, TopicName};

pub(crate) struct Aliases<M>(PhantomData<M>);

#[allow(clippy::unused_self, reason = "as where there are some")]
impl<M> Aliases<M> {
    pub(crate) fn new(_: M) -> Self {
        Self(PhantomData)
    }

    pub(crate) const fn clear(&mut self) {}

    pub(crate) const fn topic(&self, _: TopicAlias) -> Option<TopicName<'_>> {
        None
    }

    pub(crate) const fn set(&mut self, _: TopicAlias, _: TopicName<'_>) -> bool {
        false
    }

    pub(crate) const fn assign(&mut self, _: TopicName<'_>, _: u16) -> Option<(TopicAlias, bool)> {
        None
    }
}
