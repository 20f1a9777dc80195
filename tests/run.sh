#!/bin/sh
# Passes all tests: house rules, lints, unit and property tests, and the end-to-end tests on the real binary with the real kubectl.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run.sh: run as root: containers and eBPF need it" >&2; exit 1; }
sh packaging/install-deps.sh build test
export PATH="$PWD/.tools:$PATH"

step() { echo; echo "== $*"; }

if cargo fmt --version >/dev/null 2>&1; then
    step format
    cargo fmt --check
fi
if cargo clippy --version >/dev/null 2>&1; then
    step lints
    cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
fi
step the program
CORACLE_PROFILE=${CORACLE_PROFILE:-ci} sh packaging/build.sh
step tests
CORACLE_BIN="$PWD/dist/coracle" cargo test --locked --workspace --quiet
