use mqtt_session::{Client, Config, Lent, ReceiveSlot, Slot};

/// All memory of a client in one value, for a `static` or the stack. With [`Lent`] the program lends each buffer separately
/// instead.
///
/// * `INPUT`: bytes of the input buffer. Each packet but PUBLISH must fit, and of PUBLISH the head; a longer payload comes
///   in pieces.
/// * `OUTPUT`: bytes that wait for the transport: the size of the largest packet to be sent, and 64 more.
/// * `KEPT`: bytes of messages and requests that are not acknowledged.
/// * `SLOTS`: the maximum number of these, and of QoS 2 messages that were received and not released.
/// * `JOURNAL`: with the feature `flash`, bytes of records that are not stored: the longest packet of a message, 16 for each slot,
///   three times the client identifier, and 100 more.
///
/// ```
/// use mqtt_embedded::Buffers;
/// use mqtt_embedded::session::Config;
/// let mut buffers = Buffers::<256, 320, 512, 8>::new();
/// let (client, input) = buffers.client(Config::default());
/// assert_eq!((client.pending(), input.len()), (0, 256));
/// ```
#[derive(Debug)]
pub struct Buffers<
    const INPUT: usize,
    const OUTPUT: usize,
    const KEPT: usize,
    const SLOTS: usize,
    const JOURNAL: usize = 0,
> {
    input: [u8; INPUT],
    outgoing: [u8; OUTPUT],
    kept: [u8; KEPT],
    slots: [Slot; SLOTS],
    received: [ReceiveSlot; SLOTS],
    #[cfg(feature = "flash")]
    journal: [u8; JOURNAL],
}

impl<const INPUT: usize, const OUTPUT: usize, const KEPT: usize, const SLOTS: usize>
    Buffers<INPUT, OUTPUT, KEPT, SLOTS>
{
    /// Makes empty buffers. It is a constant function, so that they can lie in a `static` cell.
    #[must_use]
    pub const fn new() -> Self {
        Self::empty()
    }
}

impl<
    const INPUT: usize,
    const OUTPUT: usize,
    const KEPT: usize,
    const SLOTS: usize,
    const JOURNAL: usize,
> Buffers<INPUT, OUTPUT, KEPT, SLOTS, JOURNAL>
{
    /// Makes empty buffers for a client whose session lies in flash.
    #[cfg(feature = "flash")]
    #[must_use]
    pub const fn with_journal() -> Self {
        Self::empty()
    }

    const fn empty() -> Self {
        Self {
            input: [0; INPUT],
            outgoing: [0; OUTPUT],
            kept: [0; KEPT],
            slots: [Slot::EMPTY; SLOTS],
            received: [ReceiveSlot::EMPTY; SLOTS],
            #[cfg(feature = "flash")]
            journal: [0; JOURNAL],
        }
    }

    /// Returns a client in these buffers, and the input buffer for its connections.
    #[allow(
        clippy::needless_update,
        reason = "with other features there are more fields"
    )]
    pub fn client(&mut self, config: Config) -> (Client<'_>, &mut [u8]) {
        let lent = Lent {
            outgoing: &mut self.outgoing,
            kept: &mut self.kept,
            slots: &mut self.slots,
            received: &mut self.received,
            #[cfg(feature = "flash")]
            journal: &mut self.journal,
            ..Lent::default()
        };
        (Client::new(config, lent), &mut self.input)
    }
}

impl<const INPUT: usize, const OUTPUT: usize, const KEPT: usize, const SLOTS: usize> Default
    for Buffers<INPUT, OUTPUT, KEPT, SLOTS>
{
    fn default() -> Self {
        Self::new()
    }
}
