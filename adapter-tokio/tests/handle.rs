//! The handle under tokio, where things go wrong.

use adapter_tokio::Handle;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

mqtt_testing::handles!(Handle::start, run);
mqtt_testing::services!(Handle::start, run, 20_000);
