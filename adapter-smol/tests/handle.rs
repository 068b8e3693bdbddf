//! The handle under smol and under async-std, where things go wrong.

use std::time::Duration;

use mqtt_smol::proto::{QoS, TopicName, Version};
use mqtt_smol::{Error, Handle, Options, Outgoing};

mod on_smol {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        smol::spawn(driver).detach();
        handle
    }

    mqtt_testing::handles!(start, smol::block_on);
    mqtt_testing::services!(start, smol::block_on, 5_000);
}

mod on_async_std {
    use super::*;

    fn start(options: Options) -> Handle {
        let (handle, driver) = Handle::new(options);
        drop(async_std::task::spawn(driver));
        handle
    }

    mqtt_testing::handles!(start, async_std::task::block_on);
}

#[test]
fn a_request_has_a_time_limit() {
    let broker = mqtt_testing::peers::Mosquitto::start("");
    let mut options = Options::new("127.0.0.1", broker.port);
    options.version = Version::V5;
    let request = Outgoing::new(TopicName::from_static("nobody"), QoS::AtMostOnce, b"");
    smol::block_on(async {
        let spawn = |driver| smol::spawn(driver).detach();
        let handle = Handle::connect(options, spawn).await.unwrap();
        let response = handle.request(&request, Duration::from_millis(20)).await;
        assert!(matches!(response, Err(Error::TimedOut(_))), "{response:?}");
    });
}
