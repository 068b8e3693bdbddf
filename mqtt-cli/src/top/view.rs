//! Holds the state of the screen, and changes it with keys.

use mqtt_tokio::Message;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::tree::{Row, Tree};

/// How many lines Page Up and Page Down move.
const PAGE: usize = 10;
/// The limit of a prompt's field in bytes.
const LONGEST: usize = 4_096;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tree: Tree,
    /// The selected topic.
    pub(super) selected: String,
    /// The first line that is on the screen.
    pub(super) first: usize,
    pub(super) prompt: Option<Prompt>,
    /// The address of the broker.
    pub(super) broker: String,
    /// The state of the connection, with the reason if there is none.
    pub(super) connection: String,
    /// The last remark, such as the result of a publish.
    pub(super) notice: String,
    pub(super) is_paused: bool,
    pub(super) has_colours: bool,
}

/// A message that is being written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Prompt {
    pub(super) topic: String,
    pub(super) payload: String,
    /// Whether keys go to the payload.
    pub(super) in_payload: bool,
    pub(super) retain: bool,
    pub(super) qos: u8,
}

/// The request of a key to the program.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Request {
    Nothing,
    Quit,
    Publish(Prompt),
}

impl View {
    pub(super) fn new(broker: String, limit: usize, has_colours: bool) -> Self {
        Self {
            tree: Tree::new(limit),
            selected: String::new(),
            first: 0,
            prompt: None,
            broker,
            connection: "connecting".to_owned(),
            notice: String::new(),
            is_paused: false,
            has_colours,
        }
    }

    pub(super) fn message(&mut self, message: &Message) {
        if !self.is_paused {
            let topic = message.topic();
            let qos = message.qos.get();
            self.tree
                .insert(topic.as_str(), &message.payload, qos, message.retain);
        }
    }

    /// Moves the selection to an existing line and the first line of the screen so that it is visible.
    pub(super) fn place(&mut self, rows: &[Row<'_>], height: usize) -> usize {
        let at = self.position(rows);
        self.first = self.first.min(at).max((at + 1).saturating_sub(height));
        at
    }

    fn position(&self, rows: &[Row<'_>]) -> usize {
        let exact = rows.iter().position(|row| row.topic == self.selected);
        // A node above the selected one was closed.
        let above = || {
            rows.iter().rposition(|row| {
                self.selected
                    .strip_prefix(&row.topic)
                    .is_some_and(|rest| rest.starts_with('/'))
            })
        };
        exact.or_else(above).unwrap_or(0)
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Request {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Request::Quit;
        }
        match self.prompt.take() {
            Some(prompt) => self.key_of_prompt(prompt, key.code, control),
            None => self.key_of_tree(key.code),
        }
    }

    fn key_of_tree(&mut self, code: KeyCode) -> Request {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Request::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(|at, _| at + 1),
            KeyCode::PageUp => self.move_by(|at, _| at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.move_by(|at, _| at + PAGE),
            KeyCode::Home => self.move_by(|_, _| 0),
            KeyCode::End => self.move_by(|_, len| len),
            KeyCode::Left => self.open(|_| false),
            KeyCode::Right => self.open(|_| true),
            KeyCode::Enter => self.open(|is_open| !is_open),
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('p') => {
                let topic = self.selected.clone();
                self.prompt = Some(Prompt {
                    in_payload: !topic.is_empty(),
                    topic,
                    ..Prompt::default()
                });
            }
            _ => {}
        }
        Request::Nothing
    }

    fn move_by(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.tree.rows();
        let last = rows.len().saturating_sub(1);
        let at = to(self.position(&rows), last).min(last);
        if let Some(topic) = rows.get(at).map(|row| row.topic.clone()) {
            self.selected = topic;
        }
    }

    /// Opens or closes the selected node; the argument is whether it is open.
    fn open(&mut self, to: impl FnOnce(bool) -> bool) {
        self.move_by(|at, _| at);
        let selected = self.selected.clone();
        if let Some(node) = self.tree.get(&selected) {
            let is_open = to(node.is_open());
            self.tree.open(&selected, is_open);
        }
    }

    fn key_of_prompt(&mut self, mut prompt: Prompt, code: KeyCode, control: bool) -> Request {
        match code {
            KeyCode::Esc => return Request::Nothing,
            KeyCode::Enter if prompt.topic.is_empty() => {}
            KeyCode::Enter => return Request::Publish(prompt),
            KeyCode::Tab | KeyCode::BackTab => prompt.in_payload = !prompt.in_payload,
            KeyCode::Char('r') if control => prompt.retain = !prompt.retain,
            KeyCode::Char('t') if control => prompt.qos = (prompt.qos + 1) % 3,
            KeyCode::Char('u') if control => prompt.field().clear(),
            KeyCode::Char(character) if !control && prompt.field().len() < LONGEST => {
                prompt.field().push(character);
            }
            KeyCode::Backspace => drop(prompt.field().pop()),
            _ => {}
        }
        self.prompt = Some(prompt);
        Request::Nothing
    }
}

impl Prompt {
    /// Returns the field that gets the keys.
    const fn field(&mut self) -> &mut String {
        match self.in_payload {
            true => &mut self.payload,
            false => &mut self.topic,
        }
    }
}
