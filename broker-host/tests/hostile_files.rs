//! Any text of the three files that an operator writes is read or refused with its line: samples with pieces of them and words of their
//! syntax put anywhere. `FILES_ROUNDS` says how many texts of each; the fuzz targets `acl`, `users` and `settings` look for others.

use mqtt_broker_host::broker::ClientInfo;
use mqtt_broker_host::proto::{TopicFilter, TopicName, Version};
use mqtt_broker_host::{Acl, Settings, users};

const ACL: &str = include_str!("../../fuzz/corpus/acl/sample");
const USERS: &str = include_str!("../../fuzz/corpus/users/sample");
const SETTINGS: &str = include_str!("../broker.toml");

const WORDS: [&str; 40] = [
    "\n",
    "\r\n",
    " ",
    "\t",
    "#",
    "+",
    "/",
    "//",
    "$share/g/",
    "$SYS",
    "%u",
    "%c",
    "%",
    "\"",
    "'",
    "\\",
    "\u{0}",
    "\u{feff}",
    "ä",
    "user ",
    "topic ",
    "pattern ",
    "deny ",
    "read ",
    "write ",
    "readwrite ",
    ":",
    "$",
    "$argon2id$v=19$",
    "$7$",
    "$6$",
    "=",
    "==",
    "[",
    "]",
    "[[listener]]\n",
    "bind = ['h:1?user-file=u']\n",
    "4294967296",
    "-1",
    "true",
];

/// Numbers by xorshift: the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(most.max(1)).unwrap()).unwrap()
    }

    /// A place between two letters.
    fn place(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn change(&mut self, sample: &str) -> String {
        let mut text = sample.to_owned();
        for _ in 0..=self.below(6) {
            let (first, second) = (self.place(&text), self.place(&text));
            let (start, end) = (first.min(second), first.max(second));
            let to = self.place(&text);
            match self.below(5) {
                // The sample is long: what is cut out is short.
                0 => text.replace_range(start..start.max(end.min(self.place(&text))), ""),
                1 if text.len() < 20_000 => {
                    let piece = text[start..end].to_owned();
                    text.insert_str(to, &piece);
                }
                _ => text.insert_str(to, WORDS[self.below(WORDS.len())]),
            }
        }
        text
    }
}

fn each(sample: &str, mut check: impl FnMut(&str)) {
    let rounds = std::env::var("FILES_ROUNDS").map_or(1_000, |rounds| rounds.parse().unwrap());
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    check(sample);
    for _ in 0..rounds {
        check(&numbers.change(sample));
    }
}

#[test]
fn any_acl_file_is_read_or_refused_with_its_line() {
    let sample = ACL.split('\0').next().unwrap();
    each(sample, |text| match Acl::parse(text) {
        Err((line, _)) => assert!(
            (1..=text.lines().count()).contains(&line),
            "{line}: {text:?}"
        ),
        Ok(acl) => {
            for filter in ["plant/#", "a/+/#", "home/+/7", "#"] {
                agrees(&acl, filter, text);
            }
        }
    });
}

/// What is decided on a filter agrees with what is decided on a topic that it matches.
fn agrees(acl: &Acl, filter: &str, text: &str) {
    let parsed = TopicFilter::new(filter).unwrap();
    let topic = filter.replace(['+', '#'], "a");
    let topic = TopicName::new(&topic).unwrap();
    for user_name in [None, Some("pump"), Some("a")] {
        let client = ClientInfo {
            client_id: "7",
            user_name,
            version: Version::V5,
        };
        let may_read = acl.may_read(&client, topic);
        assert!(may_read || !acl.may_read_all(&client, parsed), "{text:?}");
        assert!(acl.may_read_some(&client, parsed) || !may_read, "{text:?}");
    }
}

#[test]
fn any_user_file_is_read_or_refused_with_its_line() {
    each(USERS, |text| {
        let lines = text.lines().count();
        match users::check(text) {
            Ok(users) => assert!(users <= lines, "{text:?}"),
            Err((line, _)) => assert!((1..=lines).contains(&line), "{line}: {text:?}"),
        }
    });
}

#[test]
fn any_settings_are_read_or_refused_with_their_line() {
    // As an operator would have it: some keys are said.
    let said = SETTINGS.replace("\n#", "\n");
    for sample in [
        SETTINGS,
        &said,
        "bind = ['h:1']\nconnections = 7\n[[listener]]\nbind = ['ws://h:2']\n",
    ] {
        each(sample, |text| match Settings::parse(text) {
            Ok(settings) => {
                let _ = settings.check();
                let _ = settings.config();
                let same = settings.clone().or(Settings::default());
                assert_eq!(format!("{same:?}"), format!("{settings:?}"), "{text:?}");
            }
            Err((line, _)) => {
                let lines = text.lines().count() + 1;
                assert!(line.is_none_or(|line| line <= lines), "{line:?}: {text:?}");
            }
        });
    }
}
