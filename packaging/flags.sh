#!/bin/sh
# Prints the RUSTFLAGS of the program: static glibc, and what makes the file smaller where this machine's linker can do it.
# Each flag is tried on a small program that is built and run; one that fails either is left out.
set -eu
# strip: here too, as cargo forgets the profile's for a package with a level of its own, which `coracle` has.
flags="-C target-feature=+crt-static -C strip=symbols"
triple=$(rustc -vV | sed -n 's/^host: //p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'fn main() { print!("{}", std::env::args().count()); }' >"$work/main.rs"
# relocation-model=static: the program is linked for one address (ADR 0008). Nothing in it is relocated at its start, so its 1.8 MB of tables stay the
# page cache's, shared by all shims, where a position-independent one makes them private to each process.
# icf=all: equal functions are kept once. Rust promises no addresses of functions, and nothing here compares them. 1.2 MB.
for flag in relocation-model=static link-arg=-Wl,--icf=all; do
    # shellcheck disable=SC2086 # a list of flags
    if rustc --edition 2024 $flags -C "$flag" --target "$triple" -o "$work/main" "$work/main.rs" 2>/dev/null && [ "$("$work/main")" = 1 ]; then
        flags="$flags -C $flag"
    fi
done
echo "$flags"
