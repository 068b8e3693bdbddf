#!/usr/bin/env bash
# Packs every package that can be published, and checks the libraries as they are in their archives. scripts/newcomer.sh builds the others
# from the same archives: the program `mqtt`, and those with a program in their README.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}" CARGO_TERM_COLOR=never
archives="$CARGO_TARGET_DIR/package"
packed="$CARGO_TARGET_DIR/packed"
trap 'rm -rf "$packed"' EXIT

printf '\n== packing\n'
rm -rf "$archives" "$packed"
mkdir -p "$packed"
# The packages are checked below instead of by `cargo package`, which would use the libraries of an earlier run with the same name and
# version. Files that are not committed are packed as well, so that the script can run before a commit.
cargo package --locked --offline --quiet --workspace --exclude mqtt-testing --allow-dirty --no-verify

# No registry has the packages, so these lines replace them by the unpacked folders.
patch=$'\n[patch.crates-io]\n'
names=()
for archive in "$archives"/*.crate; do
    # With the present time on each file, so that Cargo sees what changed since the last run.
    tar -xzmf "$archive" -C "$packed"
    folder="$packed/$(basename "$archive" .crate)"
    name=$(basename "${folder%-*}")
    for licence in LICENSE-APACHE LICENSE-MIT; do cmp "$licence" "$folder/$licence"; done
    [ -s "$folder/README.md" ] || { echo "$name has no README"; exit 1; }
    case $name in
        *-cli | *-tokio | *-std | *-smol | *-broker-host) ;;
        *) names+=("$name") ;;
    esac
    patch+="$name = { path = '$folder' }"$'\n'
done

printf '\n== checking each library from what was packed\n'
printf '[workspace]\nresolver = "3"\nmembers = ["*"]\n%s' "$patch" >"$packed/Cargo.toml"
cp Cargo.lock "$packed/"
# One at a time, so that the features of one do not apply to another.
for name in "${names[@]}"; do
    echo "$name"
    (cd "$packed" && cargo check --quiet --offline -p "$name")
done

printf '\nall packages can be published\n'
