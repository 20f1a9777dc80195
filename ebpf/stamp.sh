#!/bin/sh
# What the object depends on besides the sources: the versions of its tools.
set -eu
"${BPF_RUSTC:-/usr/bin/rustc}" -vV
"${LLVM_PREFIX:-/usr/lib/llvm-22}/bin/llvm-config" --version | sed 's/^/llvm-config: /'
bpf-linker --version
