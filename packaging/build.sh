#!/bin/sh
# Builds the static release binary and leaves it at dist/coracle. CORACLE_PROFILE=ci builds the same program with a faster link.
set -eu
cd "$(dirname "$0")/.."
sh packaging/install-deps.sh build

profile=${CORACLE_PROFILE:-release}
triple=$(rustc -vV | sed -n 's/^host: //p')
# --target keeps the flags off build scripts and procedural macros.
flags=$(sh packaging/flags.sh)
RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo build --locked --profile "$profile" --target "$triple" -p coracle
mkdir -p dist
cp "${CARGO_TARGET_DIR:-target}/$triple/$profile/coracle" dist/coracle.new
mv dist/coracle.new dist/coracle
ls -l dist/coracle
