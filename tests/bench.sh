#!/bin/sh
# Prints what docs/SPECIFICATION.md promises: figure, must, goal. As root, on a quiet machine; ratios come from one run each.
set -eu
cd "$(dirname "$0")/.."
sh packaging/install-deps.sh build test bench
[ -x dist/coracle ] || sh packaging/build.sh
export PATH="$PWD/.tools:$PATH"
work=$(mktemp -d /var/tmp/coracle-bench-XXXXXX)
bin=$PWD/dist/coracle
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; fi; "$bin" killall --data-dir "$work/data" >/dev/null 2>&1; rm -rf "$work"' EXIT

row() { printf '%-64s %14s %12s %12s\n' "$@"; }
row what figure must goal

row "the binary, stripped, MB" "$(awk -v b="$(stat -c %s dist/coracle)" 'BEGIN{printf "%.1f", b/1e6}')" "< 40" 30

"$bin" server --data-dir "$work/data" --https-listen-port 0 --kubelet-port 0 2>"$work/log" &
pid=$!
until grep -q 'ready; KUBECONFIG' "$work/log"; do kill -0 "$pid"; sleep 0.05; done
row "empty data directory to /readyz, ms" "$(awk '/API server ready/ {print $2}' "$work/log")" "< 1000" 300
sleep 60
# All processes of the cluster: the server, and its residents in the cluster's cgroups.
ours() { echo "$pid"; pgrep -f '^[^ ]*coracle[^ ]* __(dns|shim)' || true; }
pss() { for p in $(ours); do awk '/^Pss:/ {print $2}' "/proc/$p/smaps_rollup" 2>/dev/null; done | awk '{s+=$1} END {printf "%.1f", s/1024}'; }
row "idle, all roles, 60 s after start: sum of PSS, MiB" "$(pss)" "< 80" 60
ticks() { awk '{print $14+$15}' "/proc/$pid/stat"; }
written() { awk '/^write_bytes/ {print $2}' "/proc/$pid/io"; }
t0=$(ticks) w0=$(written)
sleep 60
row "idle CPU over 60 s, % of a core" "$(echo "$t0 $(ticks)" | awk '{printf "%.2f", ($2-$1)/60}')" "< 1" 0.5
row "idle disk written, GiB a day" "$(echo "$w0 $(written)" | awk '{printf "%.3f", ($2-$1)*1440/1073741824}')" "< 1" 0.2
kill "$pid"; wait "$pid" || true; pid=

echo; echo "== pods come and go"
CORACLE_BIN="$bin" cargo run --locked --release --quiet -p coracle-tests --example pods 2>/dev/null
echo; echo "== store: durable puts against a bare append + fdatasync (must > 0.5, goal 0.8); opening 100,000 objects (must < 1 s)"
cargo bench --locked --quiet -p coracle-store
echo; echo "== container create + start against runc (must < 0.5, goal 0.25) and, with cgroup v2 alone, crun (must < 1.0, goal 0.5)"
cargo run --locked --release --quiet -p coracle-runtime --example create_start -- 50
cargo run --locked --release --quiet -p coracle-runtime --example create_start -- 50 --unified
echo; echo "== an image unpacked against tar -x of the same layers (no bar)"
cargo run --locked --release --quiet -p coracle-runtime --example unpack
echo; echo "== pod to ClusterIP against plain veth + routing (must >= 1.0, goal 1.4)"
cargo run --locked --release --quiet -p coracle-network --example bench
echo; echo "== the demo's convergences"
"$bin" run -- "$bin" demo
