#!/bin/sh
# Holds the conformance ratchet: puts the specs of passing.txt to dist/coracle with a suite binary that is given by path. `run.sh --help`.
set -eu
exec python3 "$(dirname "$0")/judge.py" "$@"
