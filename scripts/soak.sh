#!/usr/bin/env bash
# Runs the tests that take too long for scripts/test.sh: the simulation of the whole system with random seeds, 50 kills of each program
# with a store, 500 resets of a device with each broker and version, Miri for three targets, each fuzz target for some minutes, the
# suite of tokio over TLS and WebSocket with 5,000 messages in each version and at each QoS, and scripts/mutations.py. The first argument
# is the number of seeds (default 20,000), the second the seconds of each fuzz target (default 600). A failing seed is printed with its
# smallest schedule; docs/TESTING.md says how to replay it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
printf '\n== the whole system in virtual time\n'
cargo run --locked --quiet --release -p mqtt-testing --example system -- --seeds "${1:-20000}"
printf '\n== kills of a broker with a store\n'
MQTT_KILLS=50 cargo test --locked -p sansio-mqtt-cli --test store --test store_kills
printf '\n== kills of brokers and servers of a cluster\n'
MQTT_KILLS=5 cargo test --locked -p sansio-mqtt-cli --features nats --test cluster
printf '\n== kills of a publisher and of a subscriber with a store\n'
MQTT_KILLS=50 cargo test --locked -p sansio-mqtt-cli --test outbox
printf '\n== resets of a device whose flash is a file\n'
MQTT_RESETS=500 cargo test --locked -p sansio-mqtt-cli --test firmware flash
printf '\n== under Miri\n'
scripts/miri.sh
printf '\n== fuzz\n'
scripts/fuzz.sh "${2:-600}"
printf '\n== tokio over TLS, WebSocket and Unix sockets\n'
MQTT_CUT_MESSAGES=5000 cargo test --locked -p sansio-mqtt-tokio --features proxy,tls,websocket --test secured
printf '\n== rules broken on purpose\n'
scripts/mutations.py
