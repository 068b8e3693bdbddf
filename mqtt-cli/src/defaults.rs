//! Reads default options from the files in the home folder that mosquitto's programs use.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Returns the name of the file for a command, if it has one.
pub(crate) fn file_name(arguments: &[OsString]) -> Option<&'static str> {
    match arguments.get(1)?.to_str()? {
        "pub" => Some("mosquitto_pub"),
        "sub" => Some("mosquitto_sub"),
        "rr" => Some("mosquitto_rr"),
        _ => None,
    }
}

/// Inserts the arguments of the file first, so that the command line has precedence.
pub(crate) fn with_file(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let text = file_name(&arguments)
        .and_then(|name| Some(folder()?.join(name)))
        .and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(text) = text {
        arguments.splice(2..2, options(&text));
    }
    arguments
}

fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")))
}

/// Parses an option and its value from each line.
fn options(text: &str) -> Vec<OsString> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(|line| {
            let (option, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            // A property has a command, a name and a value.
            let values: Vec<&str> = if matches!(option, "-D" | "--property") {
                value.split_whitespace().collect()
            } else {
                Some(value.trim())
                    .filter(|value| !value.is_empty())
                    .into_iter()
                    .collect()
            };
            std::iter::once(option)
                .chain(values)
                .map(OsStr::new)
                .map(OsString::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_option_and_its_value() {
        let read = options("# mine\n-h test.example\n\n  -q 1\n-d\n-D publish content-type json\n");
        let expected = [
            "-h",
            "test.example",
            "-q",
            "1",
            "-d",
            "-D",
            "publish",
            "content-type",
            "json",
        ];
        assert_eq!(read, expected);
    }
}
