//! Parses the text of an ACL file, and a topic filter after a zero byte: decisions about the filter must agree with decisions
//! about topics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_broker_host::Acl;
use mqtt_broker_host::broker::ClientInfo;
use mqtt_broker_host::proto::{TopicFilter, TopicName, Version};

fuzz_target!(|text: &str| {
    let (text, filter) = text.split_once('\0').unwrap_or((text, "a/+/#"));
    let acl = match Acl::parse(text) {
        Ok(acl) => acl,
        Err((line, _)) => {
            assert!((1..=text.lines().count()).contains(&line));
            return;
        }
    };
    let Ok(parsed) = TopicFilter::new(filter) else {
        return;
    };
    for user_name in [None, Some("pump"), Some("a")] {
        let client = ClientInfo {
            client_id: "7",
            user_name,
            version: Version::V5,
        };
        let all = acl.may_read_all(&client, parsed);
        let some = acl.may_read_some(&client, parsed);
        // A topic that the filter matches, unless the filter does not match topics with `$`.
        let topic = filter.replace(['+', '#'], "a");
        if parsed.is_shared() || topic.starts_with('$') || filter.len() > 1_000 {
            continue;
        }
        let Ok(topic) = TopicName::new(&topic) else {
            continue;
        };
        let may_read = acl.may_read(&client, topic);
        assert!(may_read || !all, "all topics, but not {topic}");
        assert!(some || !may_read, "{topic}, but no topic");
        let _ = acl.may_publish(&client, topic);
    }
});
