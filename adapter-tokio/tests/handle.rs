//! Runs the suites of the handle under tokio.

use mqtt_testing::suites::handles::unanswered;
use mqtt_tokio::Handle;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

mqtt_testing::handles!(Handle::start, run);
mqtt_testing::services!(Handle::start, run, 20_000);

#[test]
fn a_request_has_a_time_limit() {
    run(unanswered(async |options, request, limit| {
        let handle = Handle::connect(options).await?;
        handle.request(request, limit).await
    }));
}
