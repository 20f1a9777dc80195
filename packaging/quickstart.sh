#!/bin/sh
# On a fresh Debian or Ubuntu: installs what is missing, builds, and proves a cluster with a real workload behind a real Service.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "quickstart.sh: run as root: containers and eBPF need it" >&2; exit 1; }
sh packaging/build.sh
exec dist/coracle run -- dist/coracle demo
