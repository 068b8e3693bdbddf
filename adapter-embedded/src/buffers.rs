use mqtt_session::{Client, Config, Lent, ReceiveSlot, Slot};

/// All memory of a client in one value, for a `static` or the stack. With [`Lent`] the program lends each buffer separately
/// instead.
///
/// * `INPUT`: bytes of the input buffer. Each packet but PUBLISH must fit, and of PUBLISH the head; a longer payload comes
///   in pieces.
/// * `OUTPUT`: bytes that wait for the transport: the size of the largest packet to be sent, and 64 more.
/// * `KEPT`: bytes of messages and requests that are not acknowledged.
/// * `SLOTS`: the maximum number of these, and of QoS 2 messages that were received and not released.
///
/// ```
/// use mqtt_embedded::Buffers;
/// use mqtt_embedded::session::Config;
/// let mut buffers = Buffers::<256, 320, 512, 8>::new();
/// let (client, input) = buffers.client(Config::default());
/// assert_eq!((client.pending(), input.len()), (0, 256));
/// ```
#[derive(Debug)]
pub struct Buffers<const INPUT: usize, const OUTPUT: usize, const KEPT: usize, const SLOTS: usize> {
    input: [u8; INPUT],
    outgoing: [u8; OUTPUT],
    kept: [u8; KEPT],
    slots: [Slot; SLOTS],
    received: [ReceiveSlot; SLOTS],
}

impl<const INPUT: usize, const OUTPUT: usize, const KEPT: usize, const SLOTS: usize>
    Buffers<INPUT, OUTPUT, KEPT, SLOTS>
{
    /// Makes empty buffers. It is a constant function, so that they can lie in a `static` cell.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            input: [0; INPUT],
            outgoing: [0; OUTPUT],
            kept: [0; KEPT],
            slots: [Slot::EMPTY; SLOTS],
            received: [ReceiveSlot::EMPTY; SLOTS],
        }
    }

    /// Returns a client in these buffers, and the input buffer for its connections.
    pub fn client(&mut self, config: Config) -> (Client<'_>, &mut [u8]) {
        let lent = Lent {
            outgoing: &mut self.outgoing,
            kept: &mut self.kept,
            slots: &mut self.slots,
            received: &mut self.received,
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
