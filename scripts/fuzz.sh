#!/usr/bin/env bash
# Runs every fuzz target for the given number of seconds (default 60), from the seeds in fuzz/corpus. New inputs go to a temporary
# folder, crashes to fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in $(cargo +nightly fuzz list); do
    printf '%s: ' "$target"
    mkdir -p "$found/$target"
    if ! cargo +nightly fuzz run "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="${1:-60}" -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 >"$found/log" 2>&1; then
        cat "$found/log"
        exit 1
    fi
    grep -o 'number_of_executed_units: *[0-9]*' "$found/log"
done
