//! Removes the passwords of URLs from the texts of errors.

use mqtt_adapter_core::without_password;

/// Returns a text without the user names and passwords of the URLs in it and in the arguments of this process, which errors
/// repeat.
pub(crate) fn removed(text: &str) -> String {
    let arguments = std::env::args_os().skip(1);
    removed_with(text, arguments.filter_map(|one| one.into_string().ok()))
}

fn removed_with(text: &str, arguments: impl Iterator<Item = String>) -> String {
    let mut text = text.to_owned();
    for argument in arguments {
        // `--url=URL` is one argument.
        let value = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => value,
            _ => argument.as_str(),
        };
        if value.contains("://") || (value.contains(':') && value.contains('@')) {
            text = text.replace(value, &without_password(value));
        }
    }
    in_urls(&text)
}

/// Removes them from each word that is like a URL.
fn in_urls(text: &str) -> String {
    let mut done = String::new();
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "'\"`".contains(c)) {
        let has_user = word
            .split_once('@')
            .is_some_and(|(user, _)| user.contains(':'));
        if word.contains("://") || has_user {
            // Punctuation at the end of a word does not belong to its URL.
            let url = word.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '/');
            done.push_str(&without_password(url));
            done.push_str(word.get(url.len()..).unwrap_or_default());
        } else {
            done.push_str(word);
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_all_but_passwords() {
        for (text, expected) in [
            (
                "cannot bind mqtt://h:1: in use",
                "cannot bind mqtt://h:1: in use",
            ),
            ("one of mqtt://, ws://", "one of mqtt://, ws://"),
            (
                "found 'mqtt://u:secret@h:1' here",
                "found 'mqtt://h:1' here",
            ),
            ("mqtt://u:secret: no port", "mqtt://u:..: no port"),
            ("u@h: a mail", "u@h: a mail"),
            ("found \"u:secret@h\"", "found \"h\""),
        ] {
            assert_eq!(removed_with(text, std::iter::empty()), expected);
        }
        let arguments = ["pub", "--url=mqtt://u:a secret@h", "u:secret@h"].map(str::to_owned);
        let text = "what are 'mqtt://u:a secret@h' and 'u:secret@h'";
        let expected = "what are 'mqtt://h' and 'h'";
        assert_eq!(removed_with(text, arguments.into_iter()), expected);
    }
}
