//! Reads the lines of the user file and of the ACL file, without empty lines and comments.

use std::path::Path;

use crate::Error;

/// Returns the lines that are neither empty nor a comment, with their numbers from 1.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads a file with users or rules, and warns if other users of this machine can read or write it.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let text = read_text(path)?;
    #[cfg(unix)]
    if let Some(mode) = open_mode(path) {
        tracing::warn!(file = %path.display(), mode = %format_args!("{mode:03o}"), "{}", match mode & 0o002 {
            0 => "every user of this machine can read this file",
            _ => "every user of this machine can change this file",
        });
    }
    Ok(text)
}

/// Reads a whole file.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}

/// Returns the permissions of a file that users other than its owner and group can read or write.
#[cfg(unix)]
fn open_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o006 != 0).then_some(mode)
}
