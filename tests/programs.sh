#!/bin/sh
# Programs of other people on a node of ours: databases and a web server from Debian's packages, Prometheus, the Python client, programs of client-go and
# controller-runtime, gVisor, and kubectl's own ways into a pod. A cluster of its own, gone afterwards.
#
#   sh tests/programs.sh BINARY [SUITE...]      suites are the files of tests/programs/ [all of them]; exit code 1: something is not as it must be
#
# The images are made once, in .tools/images. PROGRAMS_HOLD=1 keeps the cluster until Enter.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "programs.sh: run as root: containers and eBPF need it" >&2; exit 1; }
binary=$(readlink -f "${1:?"usage: programs.sh BINARY [SUITE...]"}"); shift
suites=${*:-$(basename -a -s .suite tests/programs/*.suite)}
sh packaging/install-deps.sh test programs
export PATH="$PWD/.tools:$PATH" PYTHONPATH="$PWD/.tools/python"
sh tests/programs/images.sh .tools/images
work=$(mktemp -d /var/tmp/coracle-programs-XXXXXX)
server= others=
clean() {
    for pid in $others $server; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
    "$binary" killall --data-dir "$work/data" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

. tests/judge.subr
until_within() { # until_within SECONDS COMMAND...: waits for it; silent when it comes
    limit=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$limit" ] || return 1
        sleep 0.2
    done
}
serve() { # serve: starts the cluster, and waits until it is ready
    : >"$work/log"
    "$binary" server --data-dir "$work/data" --https-listen-port "${port:-0}" --kubelet-port "${node_port:-0}" 2>>"$work/log" &
    server=$!
    until grep -q 'ready; KUBECONFIG' "$work/log"; do
        kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    export KUBECONFIG="$work/data/admin.kubeconfig"
    kubectl wait node --all --for=condition=Ready --timeout=60s >/dev/null
}
ready() { # ready OBJECT...: until they are
    kubectl wait --for=condition=Ready --timeout=90s "$@" >/dev/null || broken "they are ready: $*" "$(kubectl describe "$@" | grep -A9 '^Events:')"
}
rolled() { # rolled DEPLOYMENT...: until each is as its spec says
    for name; do
        kubectl rollout status --timeout=120s "deployment/$name" >/dev/null || broken "$name is rolled out" "$(kubectl describe pods -l "app=$name" | tail -n 30)"
    done
}
of() { # of APP PATH: a field of its first pod
    kubectl get pods -l "app=$1" -o "jsonpath={.items[0]$2}"
}
exited() { # exited POD: its first container's exit code, told as the pod goes; call it in the background, before it is deleted
    kubectl get pod "$1" --watch -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}{"\n"}'
}

began=$(date +%s)
# Where suites put OCI runtimes that the node is to find.
handlers="$work/handlers"
mkdir "$handlers"
PATH="$handlers:$PATH" serve
python3 tests/vm/guest/image.py "$(command -v busybox)" "$work/busybox.tar"
set -- .tools/images/*.tar "$work/busybox.tar"
"$binary" images --data-dir "$work/data" import "$@" >/dev/null
# What fails is counted, and the rest is judged all the same.
set +e
for suite in $suites; do
    echo "== $suite"
    . "tests/programs/$suite.suite"
done
if [ -n "${PROGRAMS_HOLD:-}" ]; then
    echo "== held: KUBECONFIG=$KUBECONFIG; Enter ends it"
    read -r _ || { sleep infinity & wait $!; }
fi
echo "== $passed as they must be, $failed not; $(($(date +%s) - began)) s"
[ "$failed" = 0 ] || { tail -n 30 "$work/log" >&2; exit 1; }
