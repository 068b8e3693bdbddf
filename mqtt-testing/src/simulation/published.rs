//! The facts about published messages and wills.

use mqtt_proto::QoS;

use super::expectations::Moment;

/// A published message. Its payload is its number.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) publisher: usize,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Whether its payload is empty, which clears the retained message.
    pub(crate) clears: bool,
    pub(crate) expires: bool,
    pub(crate) sent: Moment,
    /// When its acknowledgement arrived.
    pub(crate) acknowledged: Option<Moment>,
}

impl Published {
    /// Makes a message that is not retained and does not expire.
    pub(crate) const fn new(publisher: usize, topic: String, qos: QoS) -> Self {
        Self {
            publisher,
            topic,
            qos,
            retain: false,
            clears: false,
            expires: false,
            sent: 0,
            acknowledged: None,
        }
    }
}

/// How often the will of a process, for all its connections, may be published. Its payload is its number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct WillRecord {
    /// The minimum: connections that were lost and not resumed.
    pub(crate) least: usize,
    /// The maximum: connections that ended without DISCONNECT.
    pub(crate) most: usize,
}
