#!/usr/bin/env bash
# Runs what takes longer than the test command may: the whole system for seeds of this run's own choosing, each fuzz target for
# some minutes, tokio's suite over TLS, and the rules that scripts/mutations.py breaks. The first argument is the number of seeds (20,000 if none), the second the seconds of each fuzz target (600 if
# none). A seed that fails is printed with its smallest schedule; CONTRIBUTING.md says how to run it again.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
printf '\n== the whole system in virtual time\n'
cargo run --locked --quiet --release -p mqtt-testing --example system -- --seeds "${1:-20000}"
printf '\n== fuzz\n'
scripts/fuzz.sh "${2:-600}"
printf '\n== tokio over TLS, WebSocket and Unix sockets\n'
cargo test --locked -p sansio-mqtt-tokio --features proxy,tls,websocket --test secured
printf '\n== rules broken on purpose\n'
scripts/mutations.py
