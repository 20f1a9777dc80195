#!/bin/sh
# Rebuilds coracle.bpf.o and its STAMP. Needs Debian's rustc-web, libstd-rust-web-dev-bpf, llvm-22-dev and bpf-linker 0.13.0:
#   apt-get install -y rustc-web libstd-rust-web-dev-bpf llvm-22-dev
#   LLVM_PREFIX=/usr/lib/llvm-22 LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
# An argument is the directory to write to; without one it is this directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
export RUSTC=${BPF_RUSTC:-/usr/bin/rustc} LLVM_PREFIX=${LLVM_PREFIX:-/usr/lib/llvm-22} RUSTC_BOOTSTRAP=aya_ebpf
target=${BPF_TARGET_DIR:-$here/target}
# Paths are mapped away, so that the object is the same wherever it is built.
sep=$(printf '\037')
export CARGO_ENCODED_RUSTFLAGS="--cfg=bpf_target_arch=\"x86_64\"${sep}-Cdebuginfo=2${sep}-Clink-arg=--btf${sep}--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo${sep}--remap-path-prefix=$here=/ebpf"
unset RUSTFLAGS RUSTC_WRAPPER || true
(cd "$here" && cargo build --quiet --locked --release --target bpfel-unknown-none --target-dir "$target")
"$LLVM_PREFIX/bin/llvm-strip" -g -o "$out/coracle.bpf.o" "$target/bpfel-unknown-none/release/coracle"
sh "$here/stamp.sh" > "$out/STAMP"
