//! The settings behind the `?` of an address: who may connect there, if that differs from the other addresses.

use std::path::PathBuf;

use crate::{Error, ListenerSettings};

const WHY: &str =
    "behind ? it may have user-file=FILE and allow-anonymous=true or =false, with & between them";

/// Splits an address from what it says of its own access: `0.0.0.0:1883?user-file=FILE&allow-anonymous=false`.
pub(crate) fn split(text: &str) -> Result<(&str, Option<ListenerSettings>), Error> {
    let Some((address, rest)) = text.split_once('?') else {
        return Ok((text, None));
    };
    let mut own = ListenerSettings {
        bind: Some(vec![address.to_owned()]),
        ..ListenerSettings::default()
    };
    for part in rest.split('&') {
        let known = match part.split_once('=') {
            Some(("user-file", file)) if !file.is_empty() => {
                own.user_file.replace(PathBuf::from(file)).is_none()
            }
            Some(("allow-anonymous", word)) => match word.parse() {
                Ok(allowed) => own.allow_anonymous.replace(allowed).is_none(),
                Err(_) => false,
            },
            _ => false,
        };
        if !known {
            return Err(wrong(text, WHY));
        }
    }
    Ok((address, Some(own)))
}

/// Returns the error of an address. It shows nothing that may be a password: neither what is before an `@`, nor what stands in
/// the place of a port and is none.
pub(crate) fn wrong(text: &str, why: &'static str) -> Error {
    let address = match text.rsplit_once('@') {
        Some((_, address)) => address,
        None => without_port(text),
    };
    Error::Bind {
        address: address.to_owned(),
        why,
    }
}

/// Removes what follows the host if it is no port.
fn without_port(text: &str) -> &str {
    let start = text.find("://").map_or(0, |at| at + 3);
    let rest = &text[start..];
    let (host, port) = match rest.find(':') {
        Some(at) if !rest.starts_with(['[', '/']) => rest.split_at(at),
        _ => return text,
    };
    let port = port[1..].split(['/', '?']).next().unwrap_or_default();
    match port.parse::<u16>() {
        Ok(_) => text,
        Err(_) => &text[..start + host.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_say_who_connects_there() {
        let (address, own) =
            split("mqtts://[::]:8883?user-file=/etc/mqtt/users&allow-anonymous=true").unwrap();
        assert_eq!(address, "mqtts://[::]:8883");
        let own = own.unwrap();
        assert_eq!(own.bind, Some(vec![address.to_owned()]));
        assert_eq!(own.user_file, Some("/etc/mqtt/users".into()));
        assert_eq!(own.allow_anonymous, Some(true));
        assert_eq!(split("h:1").unwrap(), ("h:1", None));
        let (_, own) = split("unix:///run/mqtt?allow-anonymous=false").unwrap();
        assert_eq!(own.unwrap().allow_anonymous, Some(false));
        for wrong in [
            "h:1?",
            "h:1?user-file",
            "h:1?user-file=",
            "h:1?allow-anonymous=yes",
            "h:1?acl-file=x",
            "h:1?user-file=a&user-file=b",
            "h:1?user-file=a&",
        ] {
            assert!(matches!(split(wrong), Err(Error::Bind { .. })), "{wrong}");
        }
    }
}
