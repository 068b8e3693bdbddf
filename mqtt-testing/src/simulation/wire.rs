//! Moves bytes on the wires between the clients and the broker, and cuts wires.

use bytes::{Buf, BytesMut};
use mqtt_agent::{Error, Flow};
use mqtt_broker::Next;
use mqtt_proto::{Packet, QoS, Version};

use super::disk::Moved;
use super::layers::Layers;
use super::shards::Place;
use super::world::World;
use crate::packets::{packets_in, packets_with_lengths};

/// A connection with the bytes in flight in both directions.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) id: Place,
    /// The stages on both sides, if there are any.
    pub(super) layers: Option<Box<Layers>>,
    /// Plain bytes that the broker has not taken.
    pub(super) up: BytesMut,
    /// Bytes that the client has not read; its stages take them.
    pub(super) down: BytesMut,
    /// Whether the broker has not accepted input and has to see it again.
    pub(super) blocked: bool,
    /// After how many further bytes it is cut.
    pub(super) cut_after: Option<usize>,
    /// Whether the broker has read a DISCONNECT.
    pub(super) leaving: bool,
}

impl Wire {
    pub(super) fn new(id: Place, layers: Option<Layers>) -> Self {
        Self {
            id,
            layers: layers.map(Box::new),
            up: BytesMut::new(),
            down: BytesMut::new(),
            blocked: false,
            cut_after: None,
            leaving: false,
        }
    }

    /// Whether the stages of the server have written all bytes.
    fn is_written(&self) -> bool {
        let layers = self.layers.as_ref();
        layers.is_none_or(|layers| layers.server.outgoing().is_empty())
    }

    /// Whether the handshakes of the client's stages are over.
    pub(super) fn is_open(&self) -> bool {
        self.layers.as_ref().is_none_or(|layers| layers.is_open)
    }
}

/// How many bytes a wire holds before the broker must wait.
pub(super) const WIRE_CAPACITY: usize = 16 << 10;

/// Returns the number in a payload.
pub(super) fn number_of(payload: &[u8]) -> Option<u32> {
    let digits = payload.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl World {
    pub(super) fn transfer_some(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let at = self.random.below(self.active.len());
        let n = self.active.swap_remove(at);
        self.nodes[n].active = false;
        let most = 1 + self.random.below(2_000);
        self.store_client(n, false);
        let process = self.nodes[n].wire.as_ref().map(|wire| wire.id.process);
        let moved = self.transfer(n, most);
        if let Some(process) = process {
            self.crash_as_aimed(n, process, moved);
        }
        if self.has_records(n) {
            self.activate(n);
        }
    }

    /// Runs until nothing is in flight.
    pub(super) fn flush(&mut self) {
        loop {
            while let Some(n) = self.active.pop() {
                self.nodes[n].active = false;
                self.transfer(n, WIRE_CAPACITY);
            }
            let now = self.instant();
            let moved = self.shards.move_links(WIRE_CAPACITY, now);
            if !moved && !self.store_clients() && !self.broker_has_work() && !self.disk_has_work() {
                return;
            }
            self.store_some(true);
            self.wake();
        }
    }

    /// Moves up to `most` bytes in each direction on the wire of a client.
    pub(super) fn transfer(&mut self, n: usize, most: usize) -> Moved {
        let Some(mut wire) = self.nodes[n].wire.take() else {
            return Moved::default();
        };
        let mut allowed = wire.cut_after.unwrap_or(usize::MAX);
        let mut moved = self.up(n, &mut wire, most, &mut allowed);
        let up = moved > 0;
        moved += self.down(&mut wire, most, &mut allowed);
        if wire.cut_after.is_some() {
            wire.cut_after = Some(allowed);
        }
        let node = &mut self.nodes[n];
        let mut reads = 0;
        if !node.agent.is_paused() {
            reads = wire.down.len().min(node.reads.min(most));
            let bytes = wire.down.split_to(reads);
            moved += reads;
            self.arrived(n, &mut wire, &bytes);
        }
        let done = self.shards.is_closing(wire.id)
            && self.shards.outgoing(wire.id).is_empty()
            && wire.is_written()
            && wire.down.is_empty();
        let cut = wire.cut_after == Some(0);
        self.nodes[n].wire = Some(wire);
        let read = self.read(n);
        if done {
            self.ended(n);
        } else if let Err(error) = read {
            let unnoticed = self.random.once_in(2);
            self.cut(n, unnoticed, error);
        } else if cut {
            let unnoticed = self.random.once_in(2);
            self.cut(n, unnoticed, Error::EndOfStream);
        } else if moved > 0 {
            self.activate(n);
        }
        self.wake();
        let read = reads > 0;
        Moved { up, read }
    }

    /// Moves bytes from the client to the broker.
    fn up(&mut self, n: usize, wire: &mut Wire, most: usize, allowed: &mut usize) -> usize {
        let now = self.instant();
        let outgoing = self.nodes[n].agent.outgoing();
        let most = most.min(*allowed);
        let (taken, mut moved) = match &mut wire.layers {
            Some(layers) => match layers.up(outgoing, most, &mut wire.up) {
                Ok(passed) => passed,
                Err(error) => {
                    self.fail(n, format!("the server's stages fail: {error:?}"));
                    return 0;
                }
            },
            None => {
                let moved = outgoing.len().min(most);
                wire.up.extend_from_slice(&outgoing[..moved]);
                (moved, moved)
            }
        };
        self.nodes[n].agent.sent(taken);
        *allowed -= moved;
        if moved > 0 || wire.blocked {
            let closing = self.shards.is_closing(wire.id);
            let received = self.shards.receive(wire.id, &wire.up, now);
            if !closing {
                self.reached_broker(n, wire, received.consumed);
            }
            wire.up.advance(received.consumed);
            wire.blocked = matches!(received.next, Next::Blocked | Next::Yields);
            moved += usize::from(received.next == Next::Yields);
        }
        moved
    }

    /// Moves bytes from the broker to the wire.
    fn down(&mut self, wire: &mut Wire, most: usize, allowed: &mut usize) -> usize {
        let now = self.instant();
        let room = WIRE_CAPACITY.saturating_sub(wire.down.len());
        let most = most.min(room).min(*allowed);
        let outgoing = self.shards.outgoing(wire.id);
        let Some(layers) = &mut wire.layers else {
            let moved = outgoing.len().min(most);
            wire.down.extend_from_slice(&outgoing[..moved]);
            self.shards.sent(wire.id, moved, now);
            *allowed -= moved;
            return moved;
        };
        let taken = layers.server.output(outgoing);
        self.shards.sent(wire.id, taken, now);
        if self.shards.is_closing(wire.id) && self.shards.outgoing(wire.id).is_empty() {
            layers.server.close();
        }
        let moved = layers.down(most, &mut wire.down);
        *allowed -= moved;
        moved
    }

    /// Gives what the client read to its stages, and their plain bytes to its input.
    fn arrived(&mut self, n: usize, wire: &mut Wire, bytes: &[u8]) {
        let node = &mut self.nodes[n];
        let Some(layers) = &mut wire.layers else {
            node.input.extend_from_slice(bytes);
            return;
        };
        if let Err(error) = layers.client.input(bytes, &mut node.input) {
            self.fail(n, format!("the client's stages fail: {error:?}"));
            return;
        }
        if layers.client.is_open() && !layers.is_open {
            layers.is_open = true;
            self.report.layered += 1;
            self.opened(n);
        }
    }

    /// Notes what the broker has read from the client.
    fn reached_broker(&mut self, n: usize, wire: &mut Wire, consumed: usize) {
        let version = self.nodes[n].version;
        for packet in packets_in(&wire.up[..consumed], version) {
            if self.logs(n) {
                let line = format!("  -> {packet:?}");
                self.record(line);
            }
            let (qos, ack) = match packet {
                Packet::PubAck(ack) => (QoS::AtLeastOnce, ack),
                Packet::PubRec(ack) => (QoS::ExactlyOnce, ack),
                packet => {
                    wire.leaving |= matches!(packet, Packet::Disconnect(_));
                    continue;
                }
            };
            let node = &mut self.nodes[n];
            if let Some(number) = node.arrived.get(&(qos, ack.packet_id)) {
                node.unsettled.remove(number);
                let heard = node.heard.contains(number);
                if node.acknowledges_on_receipt() && !heard {
                    node.died.insert(*number);
                }
                if !heard
                    && (node.acknowledges_on_receipt() || self.expectations.gave_up(n, *number))
                {
                    // No other member of a shared subscription gets it.
                    self.expectations.ever_heard.insert(*number);
                }
            }
        }
    }

    /// Lets the client handle what it has read.
    pub(super) fn read(&mut self, n: usize) -> Result<(), Error> {
        let now = self.instant();
        let mut input = std::mem::take(&mut self.nodes[n].input);
        let node = &mut self.nodes[n];
        let before: Vec<_> = packets_with_lengths(&input, node.version)
            .map(|(packet, len)| {
                let publish = match packet {
                    Packet::Publish(publish) => Some(publish),
                    _ => None,
                };
                let publish = publish.and_then(|p| {
                    Some((
                        p.qos(),
                        p.delivery.packet_id()?,
                        number_of(p.payload)?,
                        p.dup,
                    ))
                });
                (len, publish)
            })
            .collect();
        let len = input.len();
        let copy = self.logs(n).then(|| input.to_vec());
        let flow = self.nodes[n].agent.receive(&mut input, now);
        let mut consumed = len - input.len();
        if let Some(copy) = copy {
            let version = self.nodes[n].version;
            let lines: Vec<_> = packets_in(&copy[..consumed], version)
                .map(|packet| format!("  <- {packet:?}"))
                .collect();
            lines.into_iter().for_each(|line| self.record(line));
        }
        let node = &mut self.nodes[n];
        for (len, publish) in before {
            if len > consumed {
                break;
            }
            consumed -= len;
            if let Some((qos, id, number, dup)) = publish {
                node.arrived.insert((qos, id), number);
                if dup && qos == QoS::AtLeastOnce && node.acknowledges_on_receipt() {
                    self.expectations.lives[n].came_again.insert(number);
                }
            }
        }
        let write = flow.as_ref().is_ok_and(|flow| *flow == Flow::Write);
        if flow.is_ok() {
            node.input = input;
        }
        self.look(n);
        if write {
            self.activate(n);
        }
        self.check_limits(n);
        flow.map(drop)
    }

    /// Cuts the wire of a client. The broker may not notice it.
    pub(super) fn cut(&mut self, n: usize, unnoticed: bool, why: Error) {
        let now = self.instant();
        let Some(mut wire) = self.unplug(n) else {
            return;
        };
        self.report.cuts += 1;
        self.check_end(n, &mut wire, false);
        self.trace(n, format_args!("is cut, unnoticed {unnoticed}: {why}"));
        if unnoticed {
            self.unnoticed.push(wire.id);
        } else {
            self.shards.closed(wire.id, now);
        }
        self.lost(n, why);
        self.wake();
    }

    /// Ends a connection that the broker closed.
    fn ended(&mut self, n: usize) {
        let now = self.instant();
        let Some(mut wire) = self.unplug(n) else {
            return;
        };
        self.trace(n, format_args!("is closed by the broker"));
        self.check_end(n, &mut wire, true);
        self.shards.closed(wire.id, now);
        self.lost(n, Error::EndOfStream);
        self.wake();
    }

    /// Checks what the client's stages say about the end of the stream.
    fn check_end(&mut self, n: usize, wire: &mut Wire, by_server: bool) {
        let Some(layers) = &mut wire.layers else {
            return;
        };
        match layers.check_end(by_server) {
            Ok(()) => self.report.ended += usize::from(by_server && layers.is_open),
            Err(broken) => self.fail(n, broken),
        }
    }

    /// Removes the wire, and notes it.
    pub(super) fn unplug(&mut self, n: usize) -> Option<Wire> {
        let moment = self.tick_moment();
        let node = &mut self.nodes[n];
        let wire = node.wire.take()?;
        node.input.clear();
        let connected = std::mem::take(&mut node.connected);
        let life = &mut self.expectations.lives[n];
        (life.cut, life.ever_cut) = (true, true);
        // Taken QoS 1 messages may come again.
        for (number, taken) in &node.unsettled {
            if *taken {
                life.permit(*number, moment);
            }
        }
        // Messages that await an acknowledgement by hand may come again.
        for (_, number) in &node.in_hands {
            if !node.exactly_once.contains(number) {
                life.permit(*number, moment);
            }
        }
        if let Some(number) = node.will {
            let fact = self.expectations.wills.entry(number).or_default();
            if wire.leaving {
                fact.most -= 1;
            } else if connected && node.version == Version::V311 {
                // A delayed will is not published if the client reconnects in time.
                fact.least += 1;
            }
        }
        Some(wire)
    }

    /// Tells the agent that its connection is lost.
    pub(super) fn lost(&mut self, n: usize, why: Error) {
        let now = self.instant();
        let random = u32::try_from(self.random.next() % (1 << 32)).expect("small");
        self.nodes[n].agent.lost(why, now, random);
        self.look(n);
    }
}
