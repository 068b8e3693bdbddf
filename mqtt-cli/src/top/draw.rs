//! Draws the screen. No byte of a topic or payload reaches the terminal as a control character.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::tree::{Last, Row, Tree};
use super::view::{Prompt, View};

/// The lines of the selected message.
const DETAIL: u16 = 6;
/// The columns of the numbers before a topic.
const NUMBERS: &str = "   msg/s   messages  ";
/// The columns of the topics.
const TOPIC: usize = 36;
/// The `$SYS` topics that the first line shows.
const SYSTEM: [(&str, &str); 3] = [
    ("$SYS/broker/version", ""),
    ("$SYS/broker/clients/connected", " clients"),
    ("$SYS/broker/uptime", " up"),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let rows = [
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(DETAIL),
        Constraint::Length(1),
    ];
    let [head, body, detail, foot] = Layout::vertical(rows).areas(frame.area());
    let styles = Styles::new(view.has_colours);
    frame.render_widget(Paragraph::new(header(view, &styles)), head);
    body_of(frame, view, &styles, body);
    frame.render_widget(Paragraph::new(detail_of(view, &styles)), detail);
    frame.render_widget(Paragraph::new(footer(view, &styles)), foot);
}

/// The styles: with colours, or without colours only bold and reversed text.
struct Styles {
    head: Style,
    selected: Style,
    active: Style,
    quiet: Style,
}

impl Styles {
    fn new(has_colours: bool) -> Self {
        let coloured = |colour| match has_colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        };
        Self {
            head: Style::new().add_modifier(Modifier::BOLD),
            selected: Style::new().add_modifier(Modifier::REVERSED),
            active: coloured(Color::Green),
            quiet: coloured(Color::DarkGray),
        }
    }
}

fn header(view: &View, styles: &Styles) -> Vec<Line<'static>> {
    let root = view.tree.root();
    let mut text = format!(
        "{}  {}  {} messages, {} a second",
        harmless(&view.broker),
        harmless(&view.connection),
        root.messages,
        root.rate
    );
    for (topic, unit) in SYSTEM {
        if let Some(last) = view.tree.get(topic).and_then(|node| node.last.as_ref()) {
            text += &format!("  {}{unit}", value(last));
        }
    }
    if view.is_paused {
        text += "  PAUSED";
    }
    if view.tree.left_out > 0 {
        text += &format!("  {} on too many topics", view.tree.left_out);
    }
    let columns = format!("{NUMBERS}{:<TOPIC$}  last message", "topic");
    vec![
        Line::styled(text, styles.head),
        Line::styled(columns, styles.quiet),
    ]
}

fn body_of(frame: &mut Frame<'_>, view: &mut View, styles: &Styles, area: Rect) {
    let height = usize::from(area.height);
    // The rows borrow the tree while the position is changed.
    let tree = std::mem::replace(&mut view.tree, Tree::new(0));
    let rows = tree.rows();
    let at = view.place(&rows, height);
    let lines: Vec<Line<'static>> = rows
        .iter()
        .enumerate()
        .skip(view.first)
        .take(height)
        .map(|(n, row)| line(row, n == at, styles))
        .collect();
    if let Some(row) = rows.get(at) {
        view.selected.clone_from(&row.topic);
    }
    drop(rows);
    view.tree = tree;
    frame.render_widget(Paragraph::new(lines), area);
}

fn line(row: &Row<'_>, is_selected: bool, styles: &Styles) -> Line<'static> {
    let node = row.node;
    let mark = match (node.is_leaf(), node.is_open()) {
        (true, _) => ' ',
        (false, true) => '-',
        (false, false) => '+',
    };
    let name = format!("{}{mark} {}", "  ".repeat(row.depth), harmless(row.name));
    let numbers = format!("{:>8} {:>10}  ", node.rate, node.messages);
    let last = node.last.as_ref().map(value).unwrap_or_default();
    let style = match node.rate {
        0 => Style::new(),
        _ => styles.active,
    };
    let line = Line::from(vec![
        Span::styled(numbers, style),
        Span::raw(fitting(&name, TOPIC)),
        Span::raw(format!("  {last}")),
    ]);
    match is_selected {
        true => line.style(styles.selected),
        false => line,
    }
}

/// Cuts a text, or adds spaces, to this number of characters.
fn fitting(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width {
        return format!("{text:<width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('~');
    cut
}

/// Returns the lines for the last message of the selected topic.
fn detail_of(view: &View, styles: &Styles) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(harmless(&view.selected), styles.head)];
    let Some(last) = view
        .tree
        .get(&view.selected)
        .and_then(|node| node.last.as_ref())
    else {
        return lines;
    };
    let retained = match last.retain {
        true => ", retained",
        false => "",
    };
    let about = format!("{} bytes, QoS {}{retained}", last.len, last.qos);
    lines.push(Line::styled(about, styles.quiet));
    if let Some(text) = text(last) {
        lines.extend(text.lines().map(|line| Line::raw(harmless(line))));
    } else {
        lines.extend(last.payload.chunks(16).map(|part| Line::raw(hex(part))));
    }
    lines
}

fn footer(view: &View, styles: &Styles) -> Line<'static> {
    if let Some(prompt) = &view.prompt {
        return prompt_of(prompt, styles);
    }
    if !view.notice.is_empty() {
        return Line::raw(harmless(&view.notice));
    }
    let keys = "q quit   arrows move, open and close   Enter toggle   space pause   p publish";
    Line::styled(keys, styles.quiet)
}

fn prompt_of(prompt: &Prompt, styles: &Styles) -> Line<'static> {
    let field = |text: &str, is_active: bool| {
        let style = match is_active {
            true => styles.selected,
            false => Style::new(),
        };
        Span::styled(format!("{} ", harmless(text)), style)
    };
    let retained = match prompt.retain {
        true => "retained",
        false => "not retained",
    };
    let rest = format!(
        "  QoS {} (^T), {retained} (^R), Tab, Enter, Esc",
        prompt.qos
    );
    Line::from(vec![
        Span::raw("topic "),
        field(&prompt.topic, !prompt.in_payload),
        Span::raw(" payload "),
        field(&prompt.payload, prompt.in_payload),
        Span::styled(rest, styles.quiet),
    ])
}

/// Returns a payload as one line: its text, or its bytes in hex.
fn value(last: &Last) -> String {
    match text(last) {
        Some(text) => harmless(text),
        None => hex(last.payload.get(..32).unwrap_or(&last.payload)),
    }
}

/// Returns the payload if it is text, without an incomplete character at the end.
fn text(last: &Last) -> Option<&str> {
    match str::from_utf8(&last.payload) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && last.len > last.payload.len() => {
            str::from_utf8(last.payload.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        text += &format!("{byte:02x} ");
    }
    text
}

/// Replaces control characters and characters that are invisible or change the direction of text.
pub(super) fn harmless(text: &str) -> String {
    let harmful = |character: char| {
        character.is_control()
            || matches!(character,
                '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
    };
    text.replace(harmful, "\u{FFFD}")
}
