#!/bin/sh
# The API server under load: sh tests/load.sh KBENCH [KUBE_APISERVER ETCD] prints figure, upstream's figure, must and goal of each promise.
#
# KBENCH is the load generator (a neutral JSON client over HTTP/2); KUBE_APISERVER and ETCD are upstream's programs, measured in turn with
# ours on the same disk, both with durable writes. None of them is built here. As root, on a quiet machine. Exit code 1: a must is missed.
set -eu
cd "$(dirname "$0")/.."
kbench=${1:?"usage: load.sh KBENCH [KUBE_APISERVER ETCD]"}
apiserver=${2:-} etcd=${3:-}
sh packaging/install-deps.sh build test
[ -n "${CORACLE_BIN:-}" ] || [ -x dist/coracle ] || sh packaging/build.sh
bin=${CORACLE_BIN:-$PWD/dist/coracle}
export PATH="$PWD/.tools:$PATH"
rounds=${LOAD_ROUNDS:-5}
work=$(mktemp -d /var/tmp/coracle-load-XXXXXX)
pids=
stop() {
    # The last one first: an API server does not end without its etcd.
    for pid in $pids; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
    pids=
    if [ -d "$work/data" ]; then "$bin" killall --data-dir "$work/data" >/dev/null 2>&1 || true; fi
    rm -rf "$work/data" "$work/etcd"
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

until_ready() { # until_ready URL: for a minute
    tries=0
    until curl --silent --fail --insecure --header "Authorization: Bearer load" "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "load.sh: $1 does not answer" >&2; exit 1; }
        sleep 0.1
    done
}
ours() { # ours [FLAGS...]: starts our server; $access is how kbench reaches it
    "$bin" server --data-dir "$work/data" --https-listen-port 17443 --kubelet-port 0 "$@" 2>"$work/log" &
    pids=$!
    until grep -q 'ready; KUBECONFIG' "$work/log"; do
        kill -0 "$pids" || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    for part in clusters:cluster.certificate-authority-data users:user.client-certificate-data users:user.client-key-data; do
        kubectl --kubeconfig "$work/data/admin.kubeconfig" config view --raw --output "jsonpath={.${part%%:*}[0].${part#*:}}" |
            base64 -d >"$work/${part##*.}"
    done
    access="-server https://127.0.0.1:17443 -ca $work/certificate-authority-data -cert $work/client-certificate-data -key $work/client-key-data"
}
upstream() {
    mkdir "$work/etcd"
    "$etcd" --data-dir "$work/etcd/data" --log-level error --listen-client-urls http://127.0.0.1:17379 --advertise-client-urls http://127.0.0.1:17379 \
        --listen-peer-urls http://127.0.0.1:17380 --initial-advertise-peer-urls http://127.0.0.1:17380 \
        --initial-cluster default=http://127.0.0.1:17380 2>"$work/etcd.log" &
    pids=$!
    openssl genrsa -out "$work/etcd/key" 2048 2>/dev/null
    echo load,load,load,system:masters >"$work/etcd/tokens"
    "$apiserver" --etcd-servers http://127.0.0.1:17379 --cert-dir "$work/etcd/certs" --secure-port 17444 --bind-address 127.0.0.1 \
        --service-cluster-ip-range 10.43.0.0/16 --authorization-mode RBAC --token-auth-file "$work/etcd/tokens" \
        --service-account-issuer https://load --service-account-key-file "$work/etcd/key" --service-account-signing-key-file "$work/etcd/key" \
        2>"$work/apiserver.log" &
    pids="$! $pids"
    until_ready https://127.0.0.1:17444/readyz
    access="-server https://127.0.0.1:17444 -token load"
}
sum() { # sum FILE AWK-EXPRESSION: over the servers' processes
    for pid in $pids; do awk "$2" "/proc/$pid/$1"; done | awk '{s += $1} END {print s + 0}'
}
load() { # load NAME ARGS...: kbench against what runs; its words are in $work/NAME, with CPU seconds, bytes written and memory
    name=$1; shift
    t0=$(sum stat '{print $14 + $15}') w0=$(sum io '/^write_bytes/ {print $2}')
    # shellcheck disable=SC2086 # words of flags
    "$kbench" $access "$@" >"$work/$name" 2>&1 || { cat "$work/$name" >&2; exit 1; }
    if grep -q 'watch short\|errors [1-9]' "$work/$name"; then cat "$work/$name" >&2; exit 1; fi
    {
        echo "$t0 $(sum stat '{print $14 + $15}') $(getconf CLK_TCK)" | awk '{print "cpu", ($2 - $1) / $3}'
        echo "$w0 $(sum io '/^write_bytes/ {print $2}')" | awk '{print "written", $2 - $1}'
        echo "rss $(sum status '/^VmRSS/ {print $2 / 1024}')"
        echo "peak $(sum status '/^VmHWM/ {print $2 / 1024}')"
    } >>"$work/$name"
}
of() { # of NAME WHAT: a figure out of what a load said
    case $2 in
    *-p99) awk -v what="${2%-p99}" '$1 == what {for (i = 1; i < NF; i++) if ($i == "p99") print $(i + 1)}' "$work/$1" ;;
    list-all) awk '$1 == "list-all" {print $4}' "$work/$1" ;;
    watch) awk '$1 == "watch" {print $3}' "$work/$1" ;;
    create | get | patch | delete) awk -v what="$2" '$1 == what {print $3}' "$work/$1" ;;
    *) awk -v what="$2" '$1 == what {print $2}' "$work/$1" ;;
    esac
}
. tests/rows.sh
against() { # against WHAT KEY MUST GOAL: side by side, as ours / upstream
    a=$(of ours "$2") b=$(of upstream "$2")
    row "$1, as a part of upstream's" "$(echo "$a $b" | awk 'NF == 2 {printf "%.2f", $1 / $2}')" "$3" "$4" "$a to $b"
}

titles "what, $(nproc) processors, $rounds rounds of kbench"
if [ -n "$apiserver" ]; then
    ours --roles apiserver
    load ours -rounds "$rounds"
    stop
    upstream
    load upstream -rounds "$rounds"
    stop
    against "create/s, 1 KiB configmaps, 16 workers, durable" create "> 3" "> 8"
    against "the same: p99, ms" create-p99 "< 0.33" "< 0.125"
    against "get/s" get "> 3" "> 8"
    against "patch/s" patch "> 3" "> 8"
    against "delete/s" delete "> 3" "> 8"
    against "CPU of the servers for all of it, s" cpu "< 0.25" "< 0.1"
    against "list of 2,000 (2.9 MB), ms" list-all "< 0.33" "< 0.1"
    against "watch events/s to 10 watchers over TLS" watch "> 3" "> 20"
fi
ours
load all -rounds "$rounds"
row "all roles after the run: RSS, MiB" "$(of all rss)" "< 150" "< 80"
# Of n objects a round creates, patches and deletes all, and patches half of them once more.
row "disk written per write, KiB" "$(of all written | awk -v n=$((rounds * 7000)) '{printf "%.1f", $1 / n / 1024}')" "< 4" "< 2"
load fan -rounds 1 -n 400 -watchers 1000
row "watch events/s to 1,000 watchers over TLS" "$(of fan watch)" "> 50000" "> 500000"
stop
ours
load pods -kind pods -rounds 1 -n 10000
row "10,000 pods, 10 watchers: most RSS, MiB" "$(of pods peak)" "< 200" "< 120"
exit "$failed"
