use mqtt_session::{Client, Config, Lent, ReceiveSlot, Slot};

/// What survives a connection, in a device's words.
pub type State<'b> = Client<'b>;

/// All memory of a client in one value, to lie in a `static` or on a stack: for those who would rather not lend each buffer
/// on its own, as [`Lent`] does.
///
/// * `INPUT`: bytes of the input buffer. Any packet but PUBLISH must fit, and of PUBLISH the head; longer payloads come in
///   pieces.
/// * `OUTPUT`: bytes that wait for the transport: the largest packet to be sent, and 64 more.
/// * `KEPT`: bytes of messages and requests that are not acknowledged.
/// * `SLOTS`: how many of those there are at most, and how many QoS 2 messages may be half received.
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
    /// Empty ones. Constant, so that they may lie in a `static` cell.
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

    /// A client in these buffers, and the input buffer for its connections.
    pub fn client(&mut self, config: Config) -> (State<'_>, &mut [u8]) {
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
