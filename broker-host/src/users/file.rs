//! Changes user files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Cost;
use super::hash::make;
use crate::Error;
use crate::lines::read_text;
use crate::random::random;

/// Adds a user to a user file, or changes the password. A missing file is created for its owner only. The file is replaced as a
/// whole, and keeps its owner, group and mode.
///
/// # Errors
/// [`Error::UserName`], [`Error::File`], [`Error::Hash`], [`Error::Random`].
pub fn set_password(path: &Path, user: &str, password: &str, cost: Cost) -> Result<(), Error> {
    check_name(user)?;
    let line = format!("{user}:{}", make(password.as_bytes(), cost)?);
    let _lock = lock(path);
    let text = read_or_empty(path)?;
    let kept = text.lines().filter(|line| !is_of(line, user));
    write_lines(path, kept.chain([line.as_str()]))
}

/// Makes a user file with one user. An existing file is replaced by one with the same owner, group and mode.
/// # Errors
/// The errors of [`set_password`].
pub fn create(path: &Path, user: &str, password: &str, cost: Cost) -> Result<(), Error> {
    check_name(user)?;
    let line = format!("{user}:{}", make(password.as_bytes(), cost)?);
    let _lock = lock(path);
    write_lines(path, [line.as_str()].into_iter())
}

/// Removes a user from a user file.
///
/// # Errors
/// [`Error::UserName`], [`Error::NoSuchUser`], [`Error::File`], [`Error::Random`].
pub fn remove(path: &Path, user: &str) -> Result<(), Error> {
    check_name(user)?;
    let _lock = lock(path);
    let text = read_or_empty(path)?;
    if !text.lines().any(|line| is_of(line, user)) {
        return Err(Error::NoSuchUser {
            path: path.into(),
            user: user.into(),
        });
    }
    write_lines(path, text.lines().filter(|line| !is_of(line, user)))
}

/// Checks that a user file may contain a user of this name.
///
/// # Errors
/// [`Error::UserName`].
pub fn check_name(user: &str) -> Result<(), Error> {
    // Lines are read without leading and trailing spaces.
    if user.is_empty()
        || user.trim() != user
        || user.contains(|character: char| character == ':' || character.is_control())
        || user.starts_with('#')
    {
        return Err(Error::UserName(user.into()));
    }
    Ok(())
}

/// Holds off other processes that change a file of this folder, until the result is dropped. The file itself is replaced, so that a
/// lock on it would end. A system without locks of folders is used without one.
#[cfg(unix)]
fn lock(path: &Path) -> Option<File> {
    let folder = File::open(folder_of(path)).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

#[cfg(not(unix))]
const fn lock(_path: &Path) -> Option<File> {
    None
}

/// Writes the names of the files of the folder to the disk.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(not(unix))]
const fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn folder_of(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

fn is_of(line: &str, user: &str) -> bool {
    line.trim()
        .split_once(':')
        .is_some_and(|(name, _)| name == user)
}

fn read_or_empty(path: &Path) -> Result<String, Error> {
    match read_text(path) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        read => read,
    }
}

fn write_lines<'a>(path: &Path, lines: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut text = String::new();
    for line in lines {
        text += line;
        text.push('\n');
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:016x}", u64::from_le_bytes(random()?)));
    let beside = PathBuf::from(beside);
    replace(path, &beside, &text).map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}

/// Writes a file beside the old one, and renames it to the old name.
fn replace(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    let old = match path.symlink_metadata() {
        Ok(old) if !old.is_file() => {
            let why = "is no regular file; give the path of the file itself";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut options = OpenOptions::new();
    // No existing file or link is opened.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(beside)?;
    let done = write_as(&mut file, old.as_ref(), text).and_then(|()| std::fs::rename(beside, path));
    if done.is_err() {
        let _ = std::fs::remove_file(beside);
    }
    done?;
    sync_folder(path)
}

/// Writes a new file with the owner, group and mode of the old one.
fn write_as(file: &mut File, old: Option<&std::fs::Metadata>, text: &str) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(old) = old {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(&*file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    if let Some(old) = old {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes an empty folder for a test.
    #[cfg(unix)]
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    const CHEAP: fn() -> Cost = || Cost {
        memory_kib: 8,
        iterations: 1,
    };

    #[test]
    fn names_that_would_be_read_differently_are_refused() {
        for user in [
            "",
            "#pump",
            "a:b",
            "a\nb",
            " pump",
            "pump\r",
            "a\u{1b}b",
            "a\0",
            "pump\u{85}",
        ] {
            assert!(check_name(user).is_err(), "{user:?}");
        }
        assert!(check_name("pump 7").is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_changed_file_keeps_its_mode_and_no_link_is_followed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = folder("user-file");
        let (users, link) = (folder.join("users"), folder.join("link"));
        let mode = || users.metadata().unwrap().permissions().mode() & 0o777;
        set_password(&users, "pump", "secret", CHEAP()).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o640)).unwrap();
        set_password(&users, "valve", "other", CHEAP()).unwrap();
        assert_eq!(mode(), 0o640);
        assert_eq!(
            super::super::parse(&read_text(&users).unwrap())
                .unwrap()
                .len(),
            2
        );

        symlink(&users, &link).unwrap();
        let refused = set_password(&link, "pump", "new", CHEAP()).unwrap_err();
        assert!(matches!(refused, Error::File { .. }), "{refused}");
        // An existing name is not written to, whatever it refers to.
        let beside = folder.join("beside");
        symlink(folder.join("elsewhere"), &beside).unwrap();
        assert!(replace(&users, &beside, "").is_err());
        assert!(!folder.join("elsewhere").exists());

        create(&users, "pump", "secret", CHEAP()).unwrap();
        assert_eq!(
            super::super::parse(&read_text(&users).unwrap())
                .unwrap()
                .len(),
            1
        );
        assert_eq!(mode(), 0o640);
        // The folder has the link, its target and the file of the test, and no other file.
        std::fs::remove_file(&beside).unwrap_or_default();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn users_that_are_added_at_the_same_time_all_stay() {
        let folder = folder("user-race");
        let users = folder.join("users");
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (users, start) = (&users, &start);
                scope.spawn(move || {
                    start.wait();
                    set_password(users, &format!("pump {number}"), "secret", CHEAP()).unwrap();
                });
            }
        });
        let text = read_text(&users).unwrap();
        assert_eq!(super::super::parse(&text).unwrap().len(), 8);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Only the system's administrator can give a file to another user.
    #[cfg(unix)]
    #[test]
    fn a_changed_file_keeps_its_owner_and_group() {
        use std::os::unix::fs::{MetadataExt as _, chown, symlink};
        let folder = folder("user-owner");
        let (users, link) = (folder.join("users"), folder.join("link"));
        create(&users, "pump", "secret", CHEAP()).unwrap();
        symlink(&users, &link).unwrap();
        if let Err(error) = chown(&users, Some(12_345), Some(23_456)) {
            let not = "a_changed_file_keeps_its_owner_and_group: not tested, a file cannot be given to another user";
            // The test harness does not hide this line.
            let _ = writeln!(io::stderr(), "{not}: {error}");
            std::fs::remove_dir_all(&folder).unwrap();
            return;
        }
        type Change = fn(&Path) -> Result<(), Error>;
        let changes: [Change; 3] = [
            |path| set_password(path, "valve", "other", CHEAP()),
            |path| remove(path, "valve"),
            |path| create(path, "pump", "secret", CHEAP()),
        ];
        for change in changes {
            let text = std::fs::read_to_string(&users).unwrap();
            let refused = change(&link).unwrap_err();
            assert!(matches!(refused, Error::File { .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&users).unwrap(), text);
            change(&users).unwrap();
            assert_ne!(std::fs::read_to_string(&users).unwrap(), text);
            let now = users.metadata().unwrap();
            assert_eq!((now.uid(), now.gid()), (12_345, 23_456));
            assert_eq!(now.mode() & 0o777, 0o600);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
