#!/bin/sh
# Rebuilds the object and compares it byte for byte with the committed one, when the tools are those of the STAMP; says so loudly when they are not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! stamp=$(sh "$here/stamp.sh" 2>/dev/null); then
    echo "NOT CHECKED: the eBPF toolchain is not installed, so coracle.bpf.o was not compared with its sources (build.sh says what it needs)" >&2
    exit 0
fi
if [ "$stamp" != "$(cat "$here/STAMP")" ]; then
    echo "NOT CHECKED: other tools than those that coracle.bpf.o was built with; the differences:" >&2
    echo "$stamp" | diff "$here/STAMP" - >&2 || true
    exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sh "$here/build.sh" "$out"
if ! cmp "$out/coracle.bpf.o" "$here/coracle.bpf.o"; then
    echo "coracle.bpf.o is not what its sources make: run ebpf/build.sh and commit the result" >&2
    exit 1
fi
echo "coracle.bpf.o is what its sources make"
