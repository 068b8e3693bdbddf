//! Which settings are for which listeners, and which of them nothing uses.

use tracing::warn;

use crate::binding::DEFAULT_BIND;
use crate::own_access;
use crate::{ListenerSettings, Settings};

/// Settings, and the listeners that they are for.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) own: ListenerSettings,
    /// One for each address, with all settings that it has.
    pub(crate) listeners: Vec<ListenerSettings>,
}

impl Settings {
    /// Returns the settings of each address, with the number by which hooks distinguish its listener: from 1, in the order of
    /// the addresses. The number 0 is for connections that no listener has accepted.
    pub(crate) fn numbered_listeners(&self) -> Vec<(usize, ListenerSettings)> {
        let all = ListenerSettings {
            bind: self.bind.clone(),
            ..ListenerSettings::default()
        };
        let tables = std::iter::once(&all).chain(self.listener.iter().flatten());
        let mut listeners: Vec<_> = tables.flat_map(|table| self.of_table(table)).collect();
        if listeners.is_empty() {
            listeners.push(ListenerSettings::at(DEFAULT_BIND).or(self.common()));
        }
        (1..).zip(listeners).collect()
    }

    /// Returns the settings of each address of a table.
    fn of_table(&self, table: &ListenerSettings) -> Vec<ListenerSettings> {
        let own = |text: &String| match own_access::split(text) {
            Ok((_, Some(own))) => own,
            // An error is reported when the address is bound.
            _ => ListenerSettings::at(text),
        };
        let addresses = table.bind.iter().flatten();
        let listeners = addresses.map(|text| own(text).or(table.clone()).or(self.common()));
        listeners.collect()
    }

    /// Returns the settings of all listeners, and those of each table.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        let all = self.numbered_listeners().into_iter();
        let mut scopes = vec![Scope {
            own: self.common(),
            listeners: all.map(|(_, listener)| listener).collect(),
        }];
        let tables = self.listener.iter().flatten();
        scopes.extend(tables.map(|table| Scope {
            own: table.clone(),
            listeners: self.of_table(table),
        }));
        scopes
    }

    /// Logs the settings that no client notices, which may be for listeners that this start does not have, and the listeners that
    /// refuse all clients.
    pub(crate) fn warn_of_unused(&self) {
        for listener in self.useless() {
            warn!(
                listener,
                "this refuses all clients: allow-anonymous is false, and there is no user-file and no identity-as-username"
            );
        }
        for (setting, why) in self.unused() {
            warn!(setting, "this has no effect: {why}");
        }
    }

    /// Returns the addresses whose clients can prove no user, although they need one.
    fn useless(&self) -> Vec<String> {
        let listeners = self.numbered_listeners().into_iter();
        let useless = listeners.filter(|(_, own)| {
            let has_users =
                own.user_file.is_some() || (own.has_tls() && own.identity_as_username.is_some());
            own.allow_anonymous == Some(false) && !has_users
        });
        let addresses = useless.map(|(_, own)| own.bind.unwrap_or_default().join(" "));
        addresses.collect()
    }

    /// Returns the names of these settings, each with the reason.
    fn unused(&self) -> Vec<(&'static str, &'static str)> {
        let mut unused: Vec<_> = self.scopes().iter().flat_map(Scope::unused).collect();
        let listeners = self.numbered_listeners();
        let has_users = listeners.iter().any(|(_, own)| own.user_file.is_some());
        let has_handshakes = listeners.iter().any(|(_, own)| {
            own.has_tls() || own.has_websocket() || (own.has_tcp() && own.proxy_from.is_some())
        });
        let is_off = self.tcp_keep_alive == Some(0);
        let of_all = [
            (
                self.password_queue.is_some() && !has_users,
                "password-queue",
                NO_USERS,
            ),
            (
                self.password_memory.is_some() && !has_users,
                "password-memory",
                NO_USERS,
            ),
            (
                self.handshakes.is_some() && !has_handshakes,
                "handshakes",
                "no listener has TLS, WebSocket or proxy-from",
            ),
            (
                self.tcp_keep_alive_interval.is_some() && is_off,
                "tcp-keep-alive-interval",
                NO_PROBES,
            ),
            (
                self.tcp_keep_alive_probes.is_some() && is_off,
                "tcp-keep-alive-probes",
                NO_PROBES,
            ),
        ];
        let of_all = of_all.into_iter().filter(|(is_unused, ..)| *is_unused);
        unused.extend(of_all.map(|(_, name, why)| (name, why)));
        unused.sort_unstable();
        unused.dedup();
        unused
    }
}

const NO_USERS: &str = "no listener has a user file";
const NO_PROBES: &str = "tcp-keep-alive is 0";
const NO_TLS: &str = "none of its listeners has TLS";
const NO_WEBSOCKET: &str = "none of its listeners has WebSocket";
const NO_TCP: &str = "all its listeners are Unix sockets";

impl Scope {
    /// Returns the settings that none of the listeners uses.
    fn unused(&self) -> Vec<(&'static str, &'static str)> {
        let own = &self.own;
        let has = |uses: fn(&ListenerSettings) -> bool| self.listeners.iter().any(uses);
        let (tls, websocket) = (
            has(ListenerSettings::has_tls),
            has(ListenerSettings::has_websocket),
        );
        let tcp = has(ListenerSettings::has_tcp);
        let settings = [
            (own.cert.is_some() && !tls, "cert", NO_TLS),
            (own.alpn.is_some() && !tls, "alpn", NO_TLS),
            (own.tls_minimum.is_some() && !tls, "tls-minimum", NO_TLS),
            (
                own.websocket_path.is_some() && !websocket,
                "websocket-path",
                NO_WEBSOCKET,
            ),
            (own.origin.is_some() && !websocket, "origin", NO_WEBSOCKET),
            (
                own.forwarded_from.is_some() && !websocket,
                "forwarded-from",
                NO_WEBSOCKET,
            ),
            (own.proxy_from.is_some() && !tcp, "proxy-from", NO_TCP),
        ];
        let unused = settings.into_iter().filter(|(is_unused, ..)| *is_unused);
        unused.map(|(_, name, why)| (name, why)).collect()
    }
}

impl ListenerSettings {
    /// Returns the settings of an address without settings of its own.
    pub(crate) fn at(address: &str) -> Self {
        Self {
            bind: Some(vec![address.to_owned()]),
            ..Self::default()
        }
    }

    pub(crate) fn has_tls(&self) -> bool {
        let scheme = self.address().ok().and_then(|bind| bind.scheme());
        scheme.is_some_and(|scheme| scheme.tls || (scheme.any && self.cert.is_some()))
    }

    fn has_websocket(&self) -> bool {
        let scheme = self.address().ok().and_then(|bind| bind.scheme());
        scheme.is_some_and(|scheme| scheme.websocket)
    }

    fn has_tcp(&self) -> bool {
        self.address().is_ok_and(|bind| bind.scheme().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the settings without an effect.
    fn names(text: &str) -> Vec<&'static str> {
        let unused = Settings::parse(text).unwrap().unused();
        unused.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_setting_that_no_listener_uses_is_named() {
        let certificate = "cert = 'c'\nkey = 'k'\nalpn = 'mqtt'\ntls-minimum = '1.3'\n";
        let tls = ["alpn", "cert", "tls-minimum"];
        let web = "origin = 'none'\nforwarded-from = '10.0.0.1'\nwebsocket-path = '/a'\n";
        let websocket = ["forwarded-from", "origin", "websocket-path"];
        for (bind, names_of_tls, names_of_web) in [
            ("h:1", &tls[..], &websocket[..]),
            ("unix:///s", &tls, &websocket),
            ("mqtts://h:1", &[], &websocket),
            ("ws://h:1", &tls, &[]),
            ("wss://h:1", &[], &[]),
            ("any://h:1", &[], &[]),
            ("wss://systemd:0", &[], &[]),
        ] {
            let bind = format!("bind = ['{bind}']\n");
            assert_eq!(names(&format!("{bind}{certificate}")), names_of_tls);
            assert_eq!(names(&format!("{bind}{web}")), names_of_web);
        }
        let proxy = "proxy-from = '10.0.0.1'\n";
        assert_eq!(names(proxy), [""; 0]);
        assert_eq!(names(&format!("{proxy}bind = 'unix:///s'")), ["proxy-from"]);
    }

    #[test]
    fn an_address_that_refuses_all_clients_is_named() {
        let text = "allow-anonymous = false\n\
                    cert = 'c'\nkey = 'k'\nclient-ca = 'a'\nidentity-as-username = 'subject'\n\
                    bind = ['mqtts://h:1', 'h:2?user-file=u', 'h:3?allow-anonymous=true', 'h:4']";
        assert_eq!(Settings::parse(text).unwrap().useless(), ["h:4"]);
    }

    /// What a table has is for its addresses alone, and what all have is used if one listener uses it.
    #[test]
    fn each_table_uses_its_own_settings() {
        let both = "bind = 'ws://h:1'\n[[listener]]\nbind = 'h:2'\n";
        assert_eq!(names(&format!("origin = 'none'\n{both}")), [""; 0]);
        assert_eq!(names(&format!("{both}origin = 'none'")), ["origin"]);
        let table = "[[listener]]\nbind = 'mqtts://h:2'\n";
        assert_eq!(names(&format!("alpn = 'mqtt'\n{table}")), [""; 0]);
    }

    #[test]
    fn a_limit_of_what_no_listener_has_is_named() {
        let passwords = "password-queue = 5\npassword-memory = 0\n";
        assert_eq!(names(passwords), ["password-memory", "password-queue"]);
        assert_eq!(names(&format!("{passwords}user-file = 'u'")), [""; 0]);
        let own = "bind = 'h:1?user-file=u'";
        assert_eq!(names(&format!("{passwords}{own}")), [""; 0]);
        assert_eq!(names("handshakes = 5"), ["handshakes"]);
        assert_eq!(names("handshakes = 5\nbind = 'ws://h:1'"), [""; 0]);
        let proxy = "handshakes = 5\nproxy-from = '10.0.0.1'";
        assert_eq!(names(proxy), [""; 0]);
        let probes = "tcp-keep-alive-interval = 5\ntcp-keep-alive-probes = 5\n";
        assert_eq!(names(probes), [""; 0]);
        assert_eq!(
            names(&format!("{probes}tcp-keep-alive = 0")),
            ["tcp-keep-alive-interval", "tcp-keep-alive-probes"]
        );
    }

    /// Returns the number, the address and the WebSocket path of each listener.
    fn numbered(text: &str) -> Vec<(usize, String, Option<String>)> {
        let settings = toml::from_str::<Settings>(text).unwrap();
        let listeners = settings.numbered_listeners().into_iter();
        let described = listeners.map(|(number, listener)| {
            let bind = listener.bind.unwrap().join(" ");
            (number, bind, listener.websocket_path)
        });
        described.collect()
    }

    #[test]
    fn a_listener_inherits_settings_of_all_listeners() {
        let path = |path: &str| Some(path.to_owned());
        assert_eq!(numbered(""), [(1, DEFAULT_BIND.to_owned(), None)]);
        let text = "websocket-path = '/a'\n[[listener]]\nbind = ['ws://h:1', 'h:4']\n\
                    [[listener]]\nbind = ['ws://h:2']\nwebsocket-path = '/b'";
        let own = [
            (1, "ws://h:1".into(), path("/a")),
            (2, "h:4".into(), path("/a")),
            (3, "ws://h:2".into(), path("/b")),
        ];
        assert_eq!(numbered(text), own);
        let with_bind = numbered(&format!("bind = ['h:3']\n{text}"));
        assert_eq!(with_bind[0], (1, "h:3".into(), path("/a")));
        assert_eq!(with_bind[3], (4, "ws://h:2".into(), path("/b")));
    }

    #[test]
    fn an_address_of_a_table_has_its_own_access() {
        let text = "bind = ['h:1?allow-anonymous=true', 'h:2']\nuser-file = 'all'\n\
                    [[listener]]\nbind = ['h:3?user-file=u', 'h:4']\nuser-file = 'table'";
        let settings = toml::from_str::<Settings>(text).unwrap();
        let listeners = settings.numbered_listeners();
        let access = listeners.iter().map(|(_, listener)| {
            let users = listener.user_file.as_ref().unwrap();
            (users.to_str().unwrap(), listener.allow_anonymous)
        });
        let expected = [
            ("all", Some(true)),
            ("all", None),
            ("u", None),
            ("table", None),
        ];
        assert!(access.eq(expected), "{listeners:?}");
    }
}
