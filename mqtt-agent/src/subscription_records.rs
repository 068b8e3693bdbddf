//! Writes and reads the records of subscriptions: one for each topic filter.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use mqtt_proto::{Properties, Subscription, TopicFilter};
use mqtt_session::records::{Asked, Fault, Record, Subscribed};

use crate::agent::Agent;
use crate::subscriptions::{PlainSubscription, Receiver, Route, SubscriptionState};

/// The records of the subscriptions, by topic filter.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// Whether the records may be out of date.
    pub(crate) changed: bool,
    records: BTreeMap<String, Asked>,
    /// The bytes of these filters.
    bytes: usize,
}

/// The limit for the bytes of topic filters in records. A subscription beyond it has no record.
const FILTERS: usize = 4 << 20;

/// The values of [`Asked::standing`].
const UNWANTED: u8 = 0;
const WANTED: u8 = 1;
const GRANTED: u8 = 2;

impl Subscriptions {
    /// Puts or removes a record. Returns `false` if that changes nothing, or if there is no room.
    fn put(&mut self, filter: &str, state: Option<Asked>) -> bool {
        let known = self.records.remove(filter).is_some();
        if known {
            self.bytes = self.bytes.saturating_sub(filter.len());
        }
        let Some(state) = state else {
            return known;
        };
        let bytes = self.bytes.saturating_add(filter.len());
        if bytes > FILTERS {
            return false;
        }
        self.bytes = bytes;
        self.records.insert(String::from(filter), state);
        true
    }

    /// Takes a record of an earlier process.
    pub(crate) fn restore(&mut self, subscribed: &Subscribed<'_>) -> Result<(), Fault> {
        let Subscribed { filter, state } = *subscribed;
        if TopicFilter::new(filter).is_err() {
            return Err(Fault::Key);
        }
        if !self.put(filter, state) && state.is_some() {
            return Err(Fault::Value);
        }
        Ok(())
    }
}

impl Route {
    /// Adds the state of each filter of this route. If one route wants a filter and another one gives it up, the filter is
    /// wanted.
    fn record(&self, records: &mut BTreeMap<String, Asked>) {
        let standing = match self.standing {
            SubscriptionState::Wanted | SubscriptionState::Asked(_) => WANTED,
            SubscriptionState::Granted => GRANTED,
            SubscriptionState::Unwanted | SubscriptionState::Leaving(_) => UNWANTED,
            SubscriptionState::Over => return,
        };
        for wanted in &self.wanted {
            let asked = Asked {
                standing,
                options: wanted.subscription().options(),
                identifier: self.identifier.unwrap_or(0),
            };
            if standing != UNWANTED || !records.contains_key(&wanted.filter) {
                records.insert(wanted.filter.clone(), asked);
            }
        }
    }
}

impl Agent {
    /// Adds a route without a receiver for each subscription of the earlier process.
    pub(crate) fn add_restored_routes(&mut self) {
        for (filter, asked) in core::mem::take(&mut self.journal.subscriptions.records) {
            let standing = match asked.standing {
                UNWANTED => SubscriptionState::Unwanted,
                WANTED => SubscriptionState::Wanted,
                _ => SubscriptionState::Granted,
            };
            let is_known = self.routes.iter().any(|route| route.has(&filter));
            if !is_known
                && let Ok(topic_filter) = TopicFilter::new(&filter)
                && let Some(wanted) = Subscription::with_options(topic_filter, asked.options)
            {
                let receiver = Receiver::Nobody;
                let wanted = Vec::from([PlainSubscription::new(&wanted)]);
                let id = self.add_route(wanted, &Properties::EMPTY, standing, receiver);
                if let Some(route) = self.route(id) {
                    route.identifier = Some(asked.identifier).filter(|known| *known > 0);
                }
            }
            self.journal.subscriptions.records.insert(filter, asked);
        }
    }

    /// Removes filters for which the program subscribes itself from the subscriptions of the earlier process.
    pub(crate) fn forget_restored(&mut self, wanted: &[PlainSubscription]) {
        if !self.journal.is_on {
            return;
        }
        self.routes.retain_mut(|route| {
            if matches!(route.receiver, Receiver::Nobody) && route.is_wanted() {
                route
                    .wanted
                    .retain(|known| !wanted.iter().any(|new| new.filter == known.filter));
            }
            !route.wanted.is_empty()
        });
    }

    /// Writes a record for each changed subscription. A closing client leaves its subscriptions recorded for the next process.
    pub(crate) fn record_subscriptions(&mut self) {
        if !self.journal.is_on || self.is_closing() {
            return;
        }
        let subscriptions = &mut self.journal.subscriptions;
        subscriptions.changed = false;
        let mut wanted = BTreeMap::new();
        for route in &self.routes {
            route.record(&mut wanted);
        }
        let gone = subscriptions.records.keys();
        let gone = gone.filter(|filter| !wanted.contains_key(*filter));
        let mut changes: Vec<_> = gone.map(|filter| (filter.clone(), None)).collect();
        for (filter, asked) in wanted {
            if subscriptions.records.get(&filter) != Some(&asked) {
                changes.push((filter, Some(asked)));
            }
        }
        for (filter, state) in changes {
            if self.journal.subscriptions.put(&filter, state) {
                let filter = &filter;
                self.write_subscription(&Subscribed { filter, state });
            }
        }
    }

    fn write_subscription(&mut self, subscribed: &Subscribed<'_>) {
        let mut bytes = alloc::vec![0; subscribed.encoded_len().unwrap_or(0)];
        subscribed.write(&mut bytes);
        if let Ok(Some((record, _))) = Record::read(&bytes) {
            self.client.record(&record);
        }
    }
}
