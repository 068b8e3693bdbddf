//! `mqtt top`: shows the topics of a broker on the terminal while messages arrive.

mod draw;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use std::future::poll_fn;
use std::io::IsTerminal;
use std::task::Poll;
use std::time::Duration;

use clap::Args;
use mqtt_tokio::proto::{Properties, QoS, Subscription, TopicName, Version};
use mqtt_tokio::{
    ConnectionEvent, ConnectionEvents, Error, Handle, Messages, Outgoing, ReceivedMessage,
};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::interval;

use crate::args::{ConnectArgs, qos};
use crate::failure::{Failure, fail, sentence};
use crate::link;
use crate::subscribe::filters;
use view::{Prompt, Request, View};

/// Shows the topics of a broker as a tree, with rates and last messages.
///
/// Subscribes to # and $SYS/#, or to the filters of -t. The arrow keys move, open and close; space stops and resumes the screen;
/// p writes a message to the selected topic; q quits. It needs a terminal; mqtt sub prints messages without one. With NO_COLOR
/// set, it uses no colours.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true, after_help = EXAMPLES)]
pub(crate) struct Top {
    /// Topic filter. May be repeated [default: # and $SYS/#]
    #[arg(short, long)]
    topic: Vec<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Limit of stored topic levels
    #[arg(long, value_name = "NUMBER", default_value_t = 50_000)]
    topics: usize,
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  mqtt top -h broker.example
      everything on a broker
  mqtt top -L mqtts://user:secret@broker.example -t 'plant/#'
      one part of it, over TLS";

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(200);
/// Frames in a second.
const FRAMES: u32 = 5;
/// How long the key-reading thread waits for a key before it checks whether the program ends.
const KEY: Duration = Duration::from_millis(100);
/// How many messages are counted before the connection is served again.
const TURN: u32 = 64;

impl Top {
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        if !std::io::stdout().is_terminal() {
            return Err(fail("mqtt top needs a terminal; mqtt sub prints anywhere"));
        }
        let setup = self.connect.setup(&[], Version::V311)?;
        self.topic.extend(setup.url_topic);
        if self.topic.is_empty() {
            self.topic = vec!["#".to_owned(), "$SYS/#".to_owned()];
        }
        let version = setup.options.version;
        let broker = format!("{}:{}", setup.options.host, setup.options.port);
        let handle = link::start(setup.options, setup.dial, false);
        let events = handle.events();
        let mut view = View::new(broker, self.topics, has_colours());
        let streams = tokio::select! {
            streams = self.subscribe(&handle, &mut view) => streams,
            () = mqtt_broker_host::signals::interrupted() => Err(fail("interrupted")),
            error = refused(&handle) => Err(Failure::connection(&error, version)),
        }?;
        let terminal = ratatui::try_init().map_err(fail)?;
        let (keys, end) = read_keys();
        let shown = tokio::select! {
            shown = Screen { terminal, view, handle: &handle, streams, events, keys }.run() => shown,
            () = mqtt_broker_host::signals::interrupted() => Ok(()),
        };
        drop(end);
        ratatui::restore();
        let _ = handle.close(link::GOODBYE).await;
        shown
    }

    /// Subscribes to each filter separately. Fails if the broker refuses all of them.
    async fn subscribe(&self, handle: &Handle, view: &mut View) -> Result<Vec<Messages>, Failure> {
        handle.connected().await?;
        let mut streams = Vec::new();
        for filter in filters(&self.topic)? {
            let wanted = [Subscription::new(filter, self.qos)];
            match handle.subscribe_all(&wanted, Properties::EMPTY).await {
                Ok(messages) => streams.push(messages),
                Err(Error::SubscriptionRefused(codes)) => {
                    let code = codes.first().map(ToString::to_string).unwrap_or_default();
                    view.notice = format!("subscription to {filter:?} refused: {code}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        match streams.is_empty() {
            true => Err(fail(&view.notice)),
            false => Ok(streams),
        }
    }
}

/// Returns when the first attempt to connect failed.
async fn refused(handle: &Handle) -> Error {
    match handle.first_attempt().await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Starts a thread that reads keys until the second value is dropped.
fn read_keys() -> (mpsc::Receiver<Event>, mpsc::Sender<()>) {
    let (sender, keys) = mpsc::channel(64);
    let (end, mut ended) = mpsc::channel(1);
    std::thread::spawn(move || {
        while matches!(ended.try_recv(), Err(mpsc::error::TryRecvError::Empty)) {
            let event = match event::poll(KEY) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let Ok(event) = event else { return };
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    (keys, end)
}

/// The terminal and its content.
struct Screen<'a> {
    terminal: DefaultTerminal,
    view: View,
    handle: &'a Handle,
    streams: Vec<Messages>,
    events: ConnectionEvents,
    keys: mpsc::Receiver<Event>,
}

/// The events that wake the screen.
enum Wakeup {
    Frame,
    Key(Option<Event>),
    Connection(Option<ConnectionEvent>),
    Message(Option<ReceivedMessage>),
}

impl Screen<'_> {
    /// Runs until the user quits.
    async fn run(mut self) -> Result<(), Failure> {
        let mut frames = interval(FRAME);
        let (mut frame, mut in_a_row) = (0, 0);
        loop {
            let news = tokio::select! {
                biased;
                key = self.keys.recv() => Wakeup::Key(key),
                _ = frames.tick() => Wakeup::Frame,
                event = self.events.next() => Wakeup::Connection(event),
                message = next(&mut self.streams) => Wakeup::Message(message),
            };
            match news {
                Wakeup::Frame => {
                    frame += 1;
                    if frame % FRAMES == 0 && !self.view.is_paused {
                        self.view.tree.tick();
                    }
                    self.draw()?;
                }
                Wakeup::Key(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    match self.view.key(key) {
                        Request::Quit => return Ok(()),
                        Request::Publish(prompt) => self.publish(&prompt),
                        Request::Nothing => {}
                    }
                    self.draw()?;
                }
                Wakeup::Key(Some(_)) => self.draw()?,
                Wakeup::Key(None) => return Err(fail("the terminal is closed")),
                Wakeup::Connection(event) => self.connection(event)?,
                Wakeup::Message(None) => return Err(fail("the broker ended the subscriptions")),
                Wakeup::Message(Some(message)) => {
                    self.view.message(&message);
                    in_a_row += 1;
                    if in_a_row % TURN == 0 {
                        yield_now().await;
                    }
                }
            }
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let drawn = self
            .terminal
            .draw(|frame| draw::draw(frame, &mut self.view));
        drawn
            .map(|_| ())
            .map_err(|error| fail(format!("the terminal: {error}")))
    }

    fn connection(&mut self, event: Option<ConnectionEvent>) -> Result<(), Failure> {
        match event {
            Some(ConnectionEvent::Connected(_)) => self.view.connection = "connected".to_owned(),
            Some(ConnectionEvent::Lost(error)) => self.view.connection = sentence(&error),
            Some(ConnectionEvent::Stopped(error)) => return Err(fail(sentence(&error))),
            Some(_) => {}
            None => return Err(fail("the client is closed")),
        }
        Ok(())
    }

    fn publish(&mut self, prompt: &Prompt) {
        self.view.notice = match publish(self.handle, prompt) {
            Ok(()) => format!("published to {}", prompt.topic),
            Err(error) => format!("not published: {error}"),
        };
    }
}

fn publish(handle: &Handle, prompt: &Prompt) -> Result<(), Failure> {
    let topic = TopicName::new(&prompt.topic)
        .map_err(|error| fail(format!("topic {:?}: {error}", prompt.topic)))?;
    let qos = QoS::new(prompt.qos).unwrap_or(QoS::AtMostOnce);
    let message = Outgoing {
        retain: prompt.retain,
        ..Outgoing::new(topic, qos, prompt.payload.as_bytes())
    };
    drop(handle.try_publish(&message)?);
    Ok(())
}

/// Returns the next message of any stream; `None` when one of them has ended.
async fn next(streams: &mut [Messages]) -> Option<ReceivedMessage> {
    poll_fn(|cx| {
        for stream in streams.iter_mut() {
            if let Poll::Ready(message) = stream.poll_message(cx) {
                return Poll::Ready(message);
            }
        }
        Poll::Pending
    })
    .await
}
