#!/bin/sh
# Prints what docs/SPECIFICATION.md promises: figure, must, goal, and how it stands. As root, on a quiet machine; ratios come from one run each.
# Exit code 1: a figure is missing or misses its must. CORACLE_PROFILE=ci measures the program as CI builds it.
set -eu
cd "$(dirname "$0")/.."
sh packaging/install-deps.sh build test bench
[ -x dist/coracle ] || sh packaging/build.sh
export PATH="$PWD/.tools:$PATH"
profile=${CORACLE_PROFILE:-release}
work=$(mktemp -d /var/tmp/coracle-bench-XXXXXX)
bin=$PWD/dist/coracle
export CORACLE_BIN="$bin"
data=$work/data
pid=
clean() {
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
    if [ -d "$data" ]; then "$bin" killall --data-dir "$data" >/dev/null 2>&1 || true; fi
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

. tests/rows.sh
said() { sed -n "$1" "$2" | tail -n 1; } # said SED-PROGRAM FILE: its last line
run() { # run NAME COMMAND...: keeps what it says; a failure is seen by the missing figure
    words=$work/$1; shift
    "$@" >"$words" 2>&1 || { echo "bench.sh: $* failed:" >&2; tail -n 5 "$words" >&2; }
}
# As packaging/build.sh builds the program, so that both share what they are made of.
triple=$(rustc -vV | sed -n 's/^host: //p')
flags=$(sh packaging/flags.sh)
export RUSTFLAGS="${RUSTFLAGS:-} $flags"
example() { # example CRATE NAME [ARGS...]
    crate=$1; name=$2; shift 2
    cargo run --locked --quiet --profile "$profile" --target "$triple" -p "$crate" --example "$name" -- "$@"
}

echo "== $(uname -sr), $(nproc) processors, $(awk '/^MemTotal/ {printf "%.1f", $2/1048576}' /proc/meminfo) GiB, profile $profile, $(date -u +%FT%TZ)"
titles what
row "the binary, stripped, MB" "$(awk -v b="$(stat -c %s dist/coracle)" 'BEGIN {printf "%.1f", b/1e6}')" "< 40" "< 30"

# One cluster that idles.
"$bin" server --data-dir "$data" --https-listen-port 0 --kubelet-port 0 2>"$work/log" &
pid=$!
until grep -q 'ready; KUBECONFIG' "$work/log"; do
    kill -0 "$pid" || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
row "empty data directory to authenticated /readyz, ms" "$(awk '/API server ready/ {print $2}' "$work/log")" "< 1000" "< 300"
sleep 60
# All processes of the cluster: the server, and its residents, which are in the cluster's cgroups.
id=$(basename "$(dirname "$(grep -l "\"$data\"" /run/coracle/*/cluster.json)")")
ours() { echo "$pid"; grep -l "/coracle-$id\(/\|\$\)" /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3; }
sum() { # sum FILE AWK-EXPRESSION: over all of our processes
    for p in $(ours | sort -u); do awk "$2" "/proc/$p/$1" 2>/dev/null || true; done | awk '{s += $1} END {print s + 0}'
}
row "idle, all roles, 60 s after start: sum of PSS, MiB" "$(sum smaps_rollup '/^Pss:/ {print $2}' | awk '{printf "%.1f", $1/1024}')" "< 80" "< 60"
ticks() { sum stat '{print $14 + $15}'; }
written() { sum io '/^write_bytes/ {print $2}'; }
t0=$(ticks) w0=$(written)
sleep 60
row "idle CPU over 60 s, % of a core" "$(echo "$t0 $(ticks) $(getconf CLK_TCK)" | awk '{printf "%.2f", ($2-$1)/$3/60*100}')" "< 1" "< 0.5"
row "idle disk written, GiB a day" "$(echo "$w0 $(written)" | awk '{printf "%.3f", ($2-$1)*1440/1073741824}')" "< 1" "< 0.2"
kill "$pid"; wait "$pid" || true; pid=

# The demo: what a user sees, from an empty data directory on.
run demo "$bin" run -- "$bin" demo
started=$(awk '/running the command/ {print $2}' "$work/demo")
of_demo() { said "s/^$1 *\([0-9]*\) ms\$/\1/p" "$work/demo"; }
ready=$(of_demo 'the Deployment has 3 ready pods'); asked=$(of_demo "all three answer a pod by the Service's short name")
row "same to the demo's Deployment answering by DNS name, ms" "$(echo "$started $ready $asked" | awk 'NF == 3 {print $1+$2+$3}')" "< 6000" "< 3000"
row "pod deleted to its endpoint gone from its EndpointSlice, ms" "$(of_demo "a deleted pod left the Service's endpoints")" "< 100" "< 50"

run store env CORACLE_BENCH_DIR="$work" cargo bench --locked --quiet --profile "$profile" --target "$triple" -p coracle-store
row "store: durable puts by 64 writers, against append + fdatasync" "$(said 's/^ratio to the bare log.*: \([0-9.]*\) (must.*/\1/p' "$work/store")" "> 0.5" "> 0.8"
row "store: opening 100,000 objects, ms" "$(said 's/^opening 100,000 objects.*: \([0-9]*\) ms.*/\1/p' "$work/store")" "< 1000" "< 300"

run network example coracle-network bench
row "pod to ClusterIP, one byte there and back, against veth + routing" "$(said 's/^pod to ClusterIP.* ratio \([0-9.]*\);.*/\1/p' "$work/network")" ">= 1.0" ">= 1.4"
row "endpoint's end to refused by the dataplane, ms (p50)" "$(said 's/^endpoint gone after its event: p50 \([0-9.]*\)ms.*/\1/p' "$work/network")" "< 100" "< 50"

run pods example coracle-tests pods
of_pods() { said "s/^$1, ms *\([0-9.]*\) .*/\1/p" "$work/pods"; }
row "pod created to Running, image present: p50 of 50, ms" "$(of_pods 'pod created to Running.*')" "< 250" "< 150"
row "the same: p99 of 50, ms" "$(of_pods 'the same, p99')" "< 700" "< 400"
row "pod deleted to its last answer by ClusterIP, worst of 5, ms" "$(of_pods 'pod deleted to its last answer by ClusterIP.*')" "< 100" "< 50"
row "pod deleted to its last answer by DNS, worst of 5, ms" "$(of_pods 'pod deleted to its last answer by DNS.*')" "< 100" "< 50"
row "30 pods created at once, the last Running, ms" "$(of_pods '30 pods created at once.*')" "< 6000" "< 3000"
of_many() { said "s/^$1 *\([0-9.]*\) .*/\1/p" "$work/pods"; }
row "100 idle pods: RSS of the server, MiB" "$(of_many '100 idle pods: RSS.*MiB')" "< 120" "< 90"
row "the same: private memory of a shim, MiB" "$(of_many '100 idle pods: private.*MiB')" "< 1" "< 0.5"
row "the same, no probes: CPU of all of ours, % of a core" "$(of_many '100 idle pods, no probes.*core')" "< 1" "< 0.5"
row "100 pods with an http probe each second: the same" "$(of_many '100 pods with an http probe.*core')" "< 8" "< 4"

# runc as this machine is; crun knows no hybrid layout and runs with cgroup v2 alone.
run runc example coracle-runtime create_start 50
row "container create + start, against runc" "$(said 's,.*coracle/runc \([0-9.]*\).*,\1,p' "$work/runc")" "< 0.4" "< 0.25"
row "lines/s of 200 bytes from one container to its log" "$(said 's,^log: \([0-9]*\) lines/s.*,\1,p' "$work/runc")" "> 300000" "> 1000000"
if crun --version >/dev/null 2>&1; then
    run crun example coracle-runtime create_start 50 --unified
    row "container create + start, against crun" "$(said 's,.*coracle/crun \([0-9.]*\).*,\1,p' "$work/crun")" "< 0.9" "< 0.5"
fi
run unpack example coracle-runtime unpack
row "unpack of an image of 300 MB, against tar alone" "$(said 's,^unpack: coracle/tar \([0-9.]*\).*,\1,p' "$work/unpack")" "< 1.5" "< 1.0"
exit "$failed"
