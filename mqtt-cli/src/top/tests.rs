//! Tests the screen of `mqtt top` on a terminal in memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::draw::draw;
use super::view::{Prompt, Request, View};

struct Shown {
    view: View,
    terminal: Terminal<TestBackend>,
}

impl Shown {
    fn new(has_colours: bool) -> Self {
        let mut view = View::new("broker:1883".to_owned(), 1_000, has_colours);
        view.connection = "connected".to_owned();
        let terminal = Terminal::new(TestBackend::new(100, 20)).unwrap();
        Self { view, terminal }
    }

    fn put(&mut self, topic: &str, payload: &[u8]) {
        self.view.tree.insert(topic, payload, 1, true);
    }

    /// Returns the lines of the screen without trailing spaces.
    fn lines(&mut self) -> Vec<String> {
        let view = &mut self.view;
        self.terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let width = usize::from(buffer.area.width);
        let lines = buffer.content().chunks(width);
        lines
            .map(|cells| {
                let line: String = cells.iter().map(|cell| cell.symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    fn press(&mut self, keys: &[KeyCode]) -> Request {
        let mut wish = Request::Nothing;
        for key in keys {
            wish = self.view.key(KeyEvent::new(*key, KeyModifiers::NONE));
        }
        wish
    }

    fn control(&mut self, letter: char) {
        let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(self.view.key(key), Request::Nothing);
    }

    fn write(&mut self, text: &str) {
        for letter in text.chars() {
            self.press(&[KeyCode::Char(letter)]);
        }
    }
}

#[test]
fn topics_are_a_tree_with_rates_and_last_messages() {
    let mut shown = Shown::new(true);
    for _ in 0..3 {
        shown.put("plant/pump/7", b"2.5 bar");
    }
    shown.put("$SYS/broker/clients/connected", b"12");
    shown.put("$SYS/broker/version", b"mqtt 1");
    shown.view.tree.tick();
    let lines = shown.lines();
    assert_eq!(
        lines[0],
        "broker:1883  connected  5 messages, 5 a second  mqtt 1  12 clients"
    );
    assert_eq!(
        &lines[2..6],
        [
            "       2          2  + $SYS",
            "       3          3  - plant",
            "       3          3    - pump",
            "       3          3        7                               2.5 bar",
        ]
    );
    // The closed node opens, and the lower part shows the selected message with its bytes.
    shown.press(&[KeyCode::Home, KeyCode::Enter]);
    assert!(
        shown.lines()[3].ends_with("    - broker"),
        "{:?}",
        shown.lines()
    );
    shown.press(&[KeyCode::Left, KeyCode::End]);
    let lines = shown.lines();
    assert_eq!(
        &lines[13..16],
        ["plant/pump/7", "7 bytes, QoS 1, retained", "2.5 bar"]
    );
    shown.press(&[KeyCode::Up, KeyCode::Left]);
    assert_eq!(shown.lines()[4], "       3          3    + pump");
    assert_eq!(shown.press(&[KeyCode::Char('q')]), Request::Quit);
}

#[test]
fn the_selection_stays_on_the_screen() {
    let mut shown = Shown::new(true);
    for n in 0..50 {
        shown.put(&format!("t{n:02}"), b"");
    }
    assert!(shown.lines()[2].ends_with("t00"));
    shown.press(&[KeyCode::PageDown, KeyCode::PageDown, KeyCode::Down]);
    let lines = shown.lines();
    assert!(lines[12].ends_with("t21"), "{lines:?}");
    shown.press(&[KeyCode::Home]);
    assert!(shown.lines()[2].ends_with("t00"));
}

/// Topics with escape sequences, a bell or a change of direction put none of these in a cell.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut shown = Shown::new(true);
    shown.put(
        "a\u{1b}]0;x\u{7}/b\u{9b}2J\u{202e}",
        b"\x1b[31mred\x07\r\nsecond\tline",
    );
    shown.put("c", b"\xff\x1b[2J");
    shown.view.notice = "\u{1b}[2J".to_owned();
    shown.view.connection = "refused\u{1b}[2J".to_owned();
    let lines = shown.lines().join("\n");
    shown.press(&[KeyCode::Down]);
    let more = shown.lines().join("\n");
    shown.press(&[KeyCode::Char('p')]);
    let prompt = shown.lines().join("\n");
    for text in [lines, more, prompt] {
        let harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(harmful), "{text:?}");
        assert!(text.contains("\u{FFFD}]0;x\u{FFFD}"), "{text}");
        assert!(text.contains("ff 1b 5b 32 4a"), "{text}");
    }
}

#[test]
fn without_colours_no_cell_has_one() {
    for has_colours in [true, false] {
        let mut shown = Shown::new(has_colours);
        shown.put("a", b"1");
        shown.view.tree.tick();
        shown.lines();
        let buffer = shown.terminal.backend().buffer();
        let coloured = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(coloured, has_colours);
    }
}

#[test]
fn a_message_is_written_with_the_keyboard() {
    let mut shown = Shown::new(true);
    shown.put("pump/start", b"");
    shown.press(&[KeyCode::End]);
    shown.lines();
    shown.press(&[KeyCode::Char('p')]);
    shown.write("nowq");
    shown.press(&[KeyCode::Backspace]);
    shown.control('r');
    shown.control('t');
    let lines = shown.lines();
    assert_eq!(
        lines[19],
        "topic pump/start  payload now   QoS 1 (^T), retained (^R), Tab, Enter, Esc"
    );
    let expected = Prompt {
        topic: "pump/start".to_owned(),
        payload: "now".to_owned(),
        in_payload: true,
        retain: true,
        qos: 1,
    };
    assert_eq!(shown.press(&[KeyCode::Enter]), Request::Publish(expected));
    // Without a topic nothing is published, and Esc closes the prompt.
    shown.press(&[KeyCode::Char('p'), KeyCode::Tab]);
    shown.control('u');
    assert_eq!(shown.press(&[KeyCode::Enter]), Request::Nothing);
    assert_eq!(shown.press(&[KeyCode::Esc]), Request::Nothing);
    assert_eq!(shown.view.prompt, None);
}
