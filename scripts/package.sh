#!/usr/bin/env bash
# Packs every package that can be published and compiles each from what was packed. Then a project outside of the workspace depends
# on the packed libraries: it is the README's client, with the README's dependency lines, and talks to the packed program `mqtt`.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}" CARGO_TERM_COLOR=never
packed="$CARGO_TARGET_DIR/package"
outside=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true; rm -rf "$outside"' EXIT

printf '\n== packing and compiling each package\n'
rm -rf "$packed"
# A package whose files are not committed is packed as well, so that the script can be run before a commit.
cargo package --locked --quiet --workspace --exclude mqtt-testing --allow-dirty

patches=()
for package in "$packed"/*.crate; do
    folder="${package%.crate}"
    name=$(basename "$folder")
    name="${name%-*}"
    # The folder that was compiled has files of the compiler in it; what counts is the package.
    rm -rf "$folder"
    tar -xzf "$package" -C "$packed"
    patches+=(--config "patch.crates-io.$name.path='$folder'")
    for licence in LICENSE-APACHE LICENSE-MIT; do cmp "$licence" "$folder/$licence"; done
    [ -s "$folder/README.md" ] || { echo "$name has no README"; exit 1; }
done

printf '\n== the program mqtt, installed from its package\n'
# Without `--locked`: the packed lock file says that the libraries come from the registry.
cargo install --quiet --debug --offline --path "$packed"/sansio-mqtt-cli-*/ --root "$outside/root" "${patches[@]}"
"$outside/root/bin/mqtt" --version

printf '\n== a project outside of the workspace\n'
# The first block of a kind in the README.
block() { awk -v kind="$1" '$0 == "```" kind { on = 1; next } on && /^```/ { exit } on' README.md; }
mkdir -p "$outside/pump/src"
{
    printf '[package]\nname = "pump"\nversion = "0.0.0"\nedition = "2024"\n\n'
    block toml
} >"$outside/pump/Cargo.toml"
cp Cargo.lock "$outside/pump/"
"$outside/root/bin/mqtt" broker --bind 127.0.0.1:0 2>"$outside/log" &
broker=$!
port=
for _ in $(seq 100); do
    port=$(sed -n 's/.*listening.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$outside/log")
    [ -n "$port" ] && break
    sleep 0.1
done
block rust,no_run | sed "s/127\.0\.0\.1:1883/127.0.0.1:${port:?the broker does not listen}/" >"$outside/pump/src/main.rs"
(cd "$outside/pump" && cargo build --quiet --offline "${patches[@]}")
"$CARGO_TARGET_DIR/debug/pump" >"$outside/said" &
pump=$!
# Two of its messages arrive, and it obeys a command.
"$outside/root/bin/mqtt" sub -p "$port" -t pumps/7/pressure -C 2 -W 30
"$outside/root/bin/mqtt" pub -p "$port" -t pumps/7/commands -q 1 -m faster
for _ in $(seq 100); do
    grep -q faster "$outside/said" && break
    sleep 0.1
done
kill -INT "$pump"
wait "$pump"
cat "$outside/said"
grep -q faster "$outside/said" && grep -q '^0 messages were not acknowledged$' "$outside/said"
kill "$broker" && wait "$broker" && broker=
printf '\nall packages can be published\n'
