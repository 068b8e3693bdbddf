//! Connects two stacks of stages without a network.

use mqtt_transport::bytes::BytesMut;
use mqtt_transport::{Error, Stack, Stage};

/// One end, with the bytes that arrived there.
#[derive(Debug, Default)]
pub struct End {
    /// The stages of this end.
    pub stack: Stack,
    /// The plain bytes that arrived.
    pub plain: BytesMut,
    /// The error that ended it.
    pub failed: Option<Error>,
}

impl End {
    /// Makes an end with these stages.
    #[must_use]
    pub fn new(stack: Stack) -> Self {
        Self {
            stack,
            ..Self::default()
        }
    }

    /// Feeds bytes of the transport.
    pub fn read(&mut self, wire: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.stack.input(wire, &mut self.plain).err();
        }
    }
}

/// Returns the text that is outgoing, such as the request of a WebSocket.
///
/// # Panics
/// It is no text.
pub fn outgoing_text(stage: &impl Stage) -> String {
    let bytes = stage.outgoing().to_vec();
    String::from_utf8(bytes).expect("outgoing text")
}

/// Returns the answer of a stage to a text.
///
/// # Panics
/// The stage fails.
pub fn answer_to(stage: &mut impl Stage, text: &str) -> String {
    let input = stage.input(text.as_bytes(), &mut BytesMut::new());
    input.expect("the text is accepted");
    outgoing_text(stage)
}

/// A client and a server.
#[derive(Debug, Default)]
pub struct Link {
    /// The side that dialled.
    pub client: End,
    /// The side that accepted.
    pub server: End,
}

impl Link {
    /// Makes a client and a server with these stages.
    #[must_use]
    pub fn new(client: Stack, server: Stack) -> Self {
        Self {
            client: End::new(client),
            server: End::new(server),
        }
    }

    /// Moves bytes both ways until nothing is outgoing.
    pub fn run(&mut self) {
        self.run_in_pieces(|len| len);
    }

    /// Moves bytes in reads of the sizes that `size` returns for the number of bytes.
    pub fn run_in_pieces(&mut self, mut size: impl FnMut(usize) -> usize) {
        while carry(&mut self.client, &mut self.server, &mut size)
            | carry(&mut self.server, &mut self.client, &mut size)
        {}
    }

    /// Sends plain bytes from the client to the server and others back, until all have arrived.
    ///
    /// # Panics
    /// A side takes no more bytes.
    pub fn exchange(
        &mut self,
        to_server: &[u8],
        to_client: &[u8],
        size: &mut impl FnMut(usize) -> usize,
    ) {
        let (mut up, mut down) = (to_server, to_client);
        let mut idle = 0;
        while !up.is_empty() || !down.is_empty() {
            let taken = self.client.stack.output(up);
            up = &up[taken..];
            let answered = self.server.stack.output(down);
            down = &down[answered..];
            self.run_in_pieces(&mut *size);
            idle = if taken + answered == 0 { idle + 1 } else { 0 };
            assert!(idle < 3, "nothing is taken: {self:?}");
        }
    }
}

/// Moves one piece from one end to the other. Returns whether there was one.
fn carry(from: &mut End, to: &mut End, size: &mut impl FnMut(usize) -> usize) -> bool {
    let len = from.stack.outgoing().len();
    if len == 0 {
        return false;
    }
    let n = size(len).clamp(1, len);
    let piece = from.stack.outgoing()[..n].to_vec();
    from.stack.sent(n);
    to.read(&piece);
    true
}
