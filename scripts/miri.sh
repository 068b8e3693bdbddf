#!/usr/bin/env bash
# Runs the tests of the pure crates under Miri, which finds undefined behaviour. It emulates the targets of the arguments; by default
# this machine's, a big-endian and a 32-bit one. Leaves out the laws on random input, which would take hours.
set -euo pipefail
cd "$(dirname "$0")/.."
export MIRIFLAGS="-Zmiri-disable-isolation" RUST_BACKTRACE=0
[ $# -gt 0 ] || set -- "$(rustc -vV | sed -n 's/^host: //p')" s390x-unknown-linux-gnu i686-unknown-linux-gnu
for target; do
    printf '\n%s\n' "$target"
    miri="cargo +nightly miri test --locked --quiet --target-dir target/miri --target $target"
    $miri -p sansio-mqtt-proto --lib --test malformed --test vectors
    $miri -p sansio-mqtt-journal --test format
    $miri -p sansio-mqtt-session --lib --test statements
done
