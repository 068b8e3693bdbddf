//! Servers that SRV records name.

use mqtt_smol::{DialOptions, Handle, Options};

fn start(options: Options, dial: DialOptions) -> Handle {
    let (handle, driver) = Handle::dialling(options, dial);
    smol::spawn(driver).detach();
    handle
}

mqtt_testing::srv!(start, smol::block_on);
