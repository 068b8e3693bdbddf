#!/usr/bin/env bash
# Runs every test, after it has installed missing tools; see setup.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh

# A test that hangs is a failure; the whole takes a few minutes.
limit="timeout --kill-after=10 2400"

printf '\n== tests, and the examples in the documentation\n'
$limit cargo test --locked --workspace
printf '\n== the handles over TLS, WebSocket and Unix sockets, and with settings of sockets, by SRV records\n'
$limit cargo test --locked -p sansio-mqtt-std -p sansio-mqtt-smol --features proxy,sockets,srv,tls,websocket --test secured --test sockets --test srv
printf '\n== brokers and processes with shards on three servers of NATS, which are killed\n'
$limit cargo test --locked -p sansio-mqtt-cli --features nats --test cluster
printf '\n== a broker and a few clients in every order of events and crashes\n'
$limit cargo test --locked --quiet --release -p sansio-mqtt-broker --test small_world
printf '\n== each attack for a second: the broker survives, in bounded memory\n'
$limit scripts/attack.sh --quick --debug --seconds 1 --memory 512
printf '\n== the whole system in virtual time: 2,000 seeds, 200 clients and the broker in each\n'
$limit cargo run --locked --quiet --release -p mqtt-testing --example system -- --first 1 --seeds 2000
printf '\n== two to four shards of a broker, of which single ones crash and stay away: 1,000 seeds\n'
$limit cargo run --locked --quiet --release -p mqtt-testing --example system -- --first 1 --seeds 1000 --shards 4
printf '\n== the same on a model of an engine, with processes that are taken over while they serve: 1,000 seeds\n'
MQTT_SEEDS=1000 $limit cargo test --locked --quiet -p sansio-mqtt-engine-nats --test system
printf '\n== the pure crates with every set of features\n'
$limit cargo test --locked --quiet -p sansio-mqtt-proto --no-default-features --lib
$limit cargo test --locked --quiet -p sansio-mqtt-proto --all-features --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --features v5 --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --features alloc --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --features pieces --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --features aliases --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --no-default-features --features by-hand,policies,server --lib
$limit cargo test --locked --quiet -p sansio-mqtt-session --features journal --lib --test journal
$limit cargo test --locked --quiet -p sansio-mqtt-embedded --all-features --lib --tests
if [ "$(uname -m)" = x86_64 ]; then
    printf '\n== the pure crates on 32 bits, where size goes before speed\n'
    CARGO_TARGET_I686_UNKNOWN_LINUX_MUSL_LINKER=rust-lld $limit cargo test --locked --quiet \
        --target i686-unknown-linux-musl --target-dir target/i686 -p sansio-mqtt-proto -p sansio-mqtt-session -p sansio-mqtt-broker
fi
printf '\n== what a client costs on a Cortex-M4\n'
$limit scripts/footprint.py --check
printf '\n== instructions of codec and session\n'
$limit scripts/instructions.py --check
printf '\nall tests passed\n'
