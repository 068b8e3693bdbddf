//! Carries the bytes of one pipe between its stream and NATS.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use async_nats::Subject;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{
    AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, copy, sink, split,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::flow::{Due, Flow, PipeFault, Size};
use super::hub::{BUDGET_UNIT, Entry, Hub, Post};
use super::message::{HEADER, Header, Kind, gone};

/// The bytes that an idle pipe has memory for, and the most of one message.
const IDLE: usize = 1 << 10;
const CHUNK: usize = 32 << 10;

/// Data with fewer bytes than this is copied when it has to wait: a quarter of the buffer in which NATS reads.
const COPIED: usize = 16 << 10;

/// Returns data that does not keep the much larger buffer in which it was read.
pub(crate) fn apart(data: Bytes) -> Bytes {
    match data.len() {
        0..COPIED => Bytes::copy_from_slice(&data),
        _ => data,
    }
}

/// One end of an open pipe.
pub(crate) struct Pipe {
    hub: Arc<Hub>,
    entry: Entry,
    /// The subject of the other end.
    peer: Subject,
    size: Size,
    flow: Flow,
    /// The room for what is on its way beyond what each pipe may have there.
    budget: Option<OwnedSemaphorePermit>,
    begin: Instant,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    /// Messages that came and are not written to the stream yet, and the length of each when it came.
    queue: VecDeque<(Bytes, usize)>,
    /// Whether the stream takes no bytes any more.
    is_deaf: bool,
    is_shut: bool,
    /// A header to be filled in, and what was read.
    buffer: BytesMut,
    /// How many bytes to have room for at the next read.
    want: usize,
}

/// An event at a pipe.
enum Step {
    Came(Option<Post>),
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Time,
}

impl Pipe {
    pub(crate) fn new(hub: Arc<Hub>, entry: Entry, peer: Subject, stream: DuplexStream) -> Self {
        let (reader, writer) = split(stream);
        let size = entry.size;
        Self {
            size,
            flow: Flow::new(size, hub.silence),
            budget: None,
            hub,
            entry,
            peer,
            begin: Instant::now(),
            reader,
            writer,
            queue: VecDeque::new(),
            is_deaf: false,
            is_shut: false,
            buffer: BytesMut::new(),
            want: IDLE,
        }
    }

    /// Carries bytes until the pipe ends.
    pub(crate) async fn run(mut self) {
        let mut stop = self.hub.stop.clone();
        let result = tokio::select! {
            result = self.serve() => result,
            // The sender sends nothing: it is dropped.
            _ = stop.changed() => Err(PipeFault::Silence),
        };
        let is_complete = self.flow.other_ended() && self.flow.has_ended();
        if !is_complete && result != Err(PipeFault::Gone) {
            let _ = self.publish(gone()).await;
        }
    }

    async fn serve(&mut self) -> Result<(), PipeFault> {
        let mut timer = pin!(sleep_until(self.begin + self.flow.deadline()));
        while !self.is_over() {
            if self.flow.has_to_tell() {
                self.send(Kind::Taken).await?;
            }
            let done = match self.step(timer.as_mut()).await {
                Step::Came(post) => self.take(post).await,
                Step::Read(read) => self.send_read(read).await,
                Step::Wrote(wrote) => {
                    self.note_written(wrote);
                    Ok(())
                }
                Step::Time => self.tick(timer.as_mut()).await,
            };
            match done {
                // All has come: only the reader has to take it.
                Err(PipeFault::Gone) if self.flow.other_ended() => return self.write_rest().await,
                done => done?,
            }
            if self.flow.other_ended() && self.queue.is_empty() && !self.is_shut {
                self.is_shut = true;
                self.is_deaf |= self.writer.shutdown().await.is_err();
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let has_all = self.flow.other_ended() && self.queue.is_empty();
        self.flow.has_ended() && (has_all || self.is_deaf)
    }

    /// Waits until something happens.
    async fn step(&mut self, timer: Pin<&mut Sleep>) -> Step {
        self.use_budget();
        let most = CHUNK.min(self.hub.most_data);
        let room = self.flow.room(self.budget.is_some()).min(most);
        if room > 0 && self.buffer.is_empty() {
            self.buffer.reserve(HEADER + self.want);
            self.buffer.put_bytes(0, HEADER);
        }
        let mut space = (&mut self.buffer).limit(room);
        let front = self.queue.front().map(|(bytes, _)| &bytes[..]);
        // When both ends have ended, bytes that are left are written whenever the reader of the stream takes them, however late.
        let is_waiting = !(self.flow.has_ended() && self.flow.other_ended());
        tokio::select! {
            post = self.entry.posts.recv() => Step::Came(post),
            read = self.reader.read_buf(&mut space), if room > 0 => Step::Read(read),
            wrote = self.writer.write(front.unwrap_or_default()), if front.is_some() => Step::Wrote(wrote),
            () = timer, if is_waiting => Step::Time,
        }
    }

    /// Takes room in the budget if this end would wait without it, and gives it back when it is not needed. If there is none, this end
    /// waits for its reader, and its writer waits for it.
    fn use_budget(&mut self) {
        let Size {
            window, assured, ..
        } = self.size;
        if self.flow.on_its_way() <= assured / 2 {
            self.budget = None;
        } else if self.budget.is_none()
            && !self.flow.has_ended()
            && window > assured
            && self.flow.room(false) == 0
        {
            let units = u32::try_from((window - assured) / BUDGET_UNIT).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.hub.budget).try_acquire_many_owned(units);
            self.budget = room.ok();
        }
    }

    /// Takes a message of the other end.
    async fn take(&mut self, post: Option<Post>) -> Result<(), PipeFault> {
        // There were more messages than the window allows.
        let Some(post) = post else {
            return Err(PipeFault::Window);
        };
        let Post::Message { reply, mut payload } = post else {
            return Err(PipeFault::Gone);
        };
        let header = Header::read(&mut payload).ok_or(PipeFault::Sequence)?;
        if let Some(other) = reply.filter(|reply| *reply != self.peer) {
            // A second process believes to own the shard, and answered later.
            if header.kind != Kind::Gone {
                self.hub.answer(other, gone()).await;
            }
            return Ok(());
        }
        let len = payload.len();
        self.flow.receive(header, len, self.begin.elapsed())?;
        if header.kind == Kind::Data {
            self.queue.push_back((apart(payload), len));
            if self.is_deaf {
                self.discard();
            }
        }
        Ok(())
    }

    async fn send_read(&mut self, read: io::Result<usize>) -> Result<(), PipeFault> {
        let len = read.unwrap_or(0);
        if len == 0 {
            return self.send(Kind::End).await;
        }
        let most = CHUNK.min(self.hub.most_data);
        self.want = if len >= self.want { most } else { IDLE };
        let header = self.flow.send(Kind::Data, len).write();
        let mut message = self.buffer.split();
        if let Some(place) = message.first_chunk_mut() {
            *place = header;
        }
        self.publish(message.freeze()).await
    }

    fn note_written(&mut self, wrote: io::Result<usize>) {
        let Ok(written @ 1..) = wrote else {
            self.is_deaf = true;
            self.discard();
            return;
        };
        if let Some((bytes, len)) = self.queue.front_mut() {
            bytes.advance(written);
            if bytes.is_empty() {
                self.flow.take(*len);
                self.queue.pop_front();
            }
        }
    }

    /// Drops what came, so that the other end can go on until it knows.
    fn discard(&mut self) {
        for (_, len) in self.queue.drain(..) {
            self.flow.take(len);
        }
    }

    /// Lets the reader have what came, although the other end takes nothing more.
    async fn write_rest(&mut self) -> Result<(), PipeFault> {
        let writing = async {
            for (bytes, _) in self.queue.drain(..) {
                // A reader that is gone misses nothing.
                if self.writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        let discarding = async {
            // The writer of the stream does not wait for what nobody takes.
            let _ = copy(&mut self.reader, &mut sink()).await;
            pending::<()>().await;
        };
        tokio::select! {
            () = writing => {}
            () = discarding => {}
        }
        Err(PipeFault::Gone)
    }

    async fn tick(&mut self, mut timer: Pin<&mut Sleep>) -> Result<(), PipeFault> {
        if self.flow.tick(self.begin.elapsed())? == Due::Probe {
            self.send(Kind::Probe).await?;
        }
        timer.as_mut().reset(self.begin + self.flow.deadline());
        Ok(())
    }

    /// Sends a message without data.
    async fn send(&mut self, kind: Kind) -> Result<(), PipeFault> {
        let header = self.flow.send(kind, 0).write();
        self.publish(Bytes::copy_from_slice(&header)).await
    }

    /// Publishes a message. The connection takes none for as long as it is lost and has many.
    async fn publish(&self, payload: Bytes) -> Result<(), PipeFault> {
        let (peer, own) = (self.peer.clone(), self.entry.subject.clone());
        let published = self.hub.client.publish_with_reply(peer, own, payload);
        match timeout(self.hub.silence, published).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(PipeFault::Silence),
        }
    }
}
