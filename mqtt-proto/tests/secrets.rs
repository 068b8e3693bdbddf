//! Checks that the debug output of packets shows no secret of a client.

use mqtt_proto::{Connect, Property, Version};

#[test]
fn debug_shows_no_password() {
    let token = [
        Property::AuthenticationMethod("t"),
        Property::AuthenticationData(b"secret"),
    ];
    let connect = Connect {
        user_name: Some("user"),
        password: Some(b"secret"),
        properties: (&token).into(),
        ..Connect::new(Version::V5, "pump-7")
    };
    let shown = format!("{connect:?}");
    let numbers = format!("{:?}", b"secret");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!shown.contains(&numbers[1..]), "{shown}");
    assert!(shown.contains("\"user\""), "{shown}");
    assert!(shown.contains("pump-7"), "{shown}");
    assert!(shown.contains("password: Some(\"..\")"), "{shown}");
    let without = format!("{:?}", Connect::new(Version::V5, ""));
    assert!(without.contains("password: None"), "{without}");
}
