#!/usr/bin/env bash
# Measures how clients that mean well fare while other clients attack the broker: `mqtt broker`, and Mosquitto where it is installed,
# on 127.0.0.1 only. Arguments: `--seconds N` for each attack (3), `--only NAME`; for `mqtt broker` only, `--limit N` to fail if the
# 99th percentile under an attack is more than N times that without one, and `--memory N` for the MB that it may take (512).
# `--quick` leaves Mosquitto out, `--debug` takes the programs that the tests have built. In any case it is a failure if `mqtt broker`
# does not survive an attack, locks clients out, loses a message, or takes too much memory.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin"
# The attacks take some thousand sockets, and so does the broker.
ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
quick=
profile=release
limit=()
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --debug) profile=debug ;;
    --limit | --memory) limit+=("$1" "$2") && shift ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
if [ $profile = release ]; then
    cargo build --locked --quiet --release -p sansio-mqtt-cli
    cargo build --locked --quiet --release -p mqtt-testing --example attack
else
    # With the features of the tests, so that nothing is built twice.
    cargo build --locked --quiet --workspace --bin mqtt --example attack
fi
target=$(realpath "${CARGO_TARGET_DIR:-target}/$profile")
status=0
printf '\n`mqtt broker`\n\n'
"$target/examples/attack" "${limit[@]}" "${arguments[@]}" "$target/mqtt" || status=$?
if [ -z "$quick" ] && command -v mosquitto >/dev/null; then
    printf '\nMosquitto\n\n'
    "$target/examples/attack" "${arguments[@]}" --mosquitto mosquitto || true
fi
exit $status
