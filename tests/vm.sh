#!/bin/sh
# Cgroup v2 for real: boots a small machine of Debian's cloud kernel under qemu (no KVM needed), with nothing in it but busybox, crun, runc and the
# program, and judges what the program makes of /sys/fs/cgroup, by the real kubectl and by the machine's own files.
#
#   sh tests/vm.sh BINARY [SUITE...]      suites are the files of tests/vm/ [all of them]; exit code 1: something is not as it must be
#
# VM_SUITE and VM_IMAGES are the conformance suite (e2e.test) and a directory with archives of its images, for the specs of its that need cgroup v2.
# VM_KERNEL names another package of a kernel [linux-image-cloud-amd64]; VM_HOLD=1 keeps the machine until Enter, with a kubeconfig to use meanwhile.
set -eu
cd "$(dirname "$0")/.."
binary=$(readlink -f "${1:?"usage: vm.sh BINARY [SUITE...]"}"); shift
[ "$(uname -m)" = x86_64 ] || { echo "vm.sh: the kernel that it boots is one for x86_64" >&2; exit 1; }
suites=${*:-$(basename -a -s .sh tests/vm/*.sh)}
sh packaging/install-deps.sh test vm
export PATH="$PWD/.tools:$PATH:/usr/sbin:/sbin"
work=$(mktemp -d /var/tmp/coracle-vm-XXXXXX)
qemu=
clean() {
    if [ -n "$qemu" ]; then kill "$qemu" 2>/dev/null || true; wait "$qemu" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# The kernel and its modules, unpacked once.
package=${VM_KERNEL:-linux-image-cloud-amd64}
package=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | grep . || echo "$package")
kernel=$PWD/.tools/$package
if [ ! -d "$kernel" ]; then
    (cd "$work" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x "$package"_*.deb unpacked && rm "$package"_*.deb)
    mkdir -p .tools
    mv "$work/unpacked" "$kernel"
fi
release=${package#linux-image-}
# So is the loader of AppArmor's profiles: installed here, it would load some of this machine.
apparmor=$PWD/.tools/apparmor
if [ ! -d "$apparmor" ]; then
    (cd "$work" && apt-get download -qq apparmor 2>/dev/null && dpkg-deb -x apparmor_*.deb unpacked && rm apparmor_*.deb)
    mv "$work/unpacked" "$apparmor"
fi

# Its disk: what is listed here, and no more.
root=$work/root
mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/lib/modules" "$root/lib64" "$root/www/cgi-bin"
for dir in proc sys dev run tmp mnt data images var/lib; do mkdir -p "$root/$dir"; done
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list | grep -vx busybox); do ln -sf /bin/busybox "$root/bin/$applet"; done
ln -s /bin/busybox "$root/sbin/modprobe"
cp -a "$kernel/lib/modules/$release" "$root/lib/modules/"
depmod -b "$root" "$release"
place() { # place PROGRAM NAME: with its libraries
    # In the place of a link that leads out of this tree.
    cp --remove-destination "$1" "$root/bin/$2"
    { ldd "$1" 2>/dev/null || true; } | sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
}
for program in crun runc unshare; do place "$(command -v "$program")" "$program"; done
place "$binary" coracle
place "$(find "$apparmor" -name apparmor_parser -type f)" apparmor_parser
cp tests/vm/guest/init "$root/sbin/init"
cp tests/vm/guest/sh "$root/www/cgi-bin/sh"
printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
echo vm >"$root/etc/hostname"
python3 tests/vm/guest/image.py "$(command -v busybox)" "$root/images/busybox.tar"
for archive in "${VM_IMAGES:-/nowhere}"/*.tar; do
    if [ -e "$archive" ]; then cp "$archive" "$root/images/of-suite-$(basename "$archive")"; fi
done
mke2fs -qq -t ext4 -d "$root" "$work/disk" 3G >/dev/null

# What finds the disk.
first=$work/first
mkdir -p "$first/bin" "$first/dev" "$first/proc" "$first/mnt" "$first/lib"
cp "$root/bin/busybox" "$first/bin/busybox"
ln -s busybox "$first/bin/sh"
cp tests/vm/guest/first "$first/init"
modules() { # modules NAME...: their files in the order in which they are loaded
    for name; do modprobe -d "$root" -S "$release" --show-depends "$name" | sed -n 's/^insmod \([^ ]*\).*/\1/p'; done
}
modules virtio_pci virtio_blk ext4 | awk '!seen[$0]++' | while read -r module; do
    cp "$module" "$first/lib/"
    basename "$module" >>"$first/lib/order"
done
(cd "$first" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/first.cpio"
rm -rf "$root" "$first"

# free: a port of loopback that nobody has.
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
shell_port=$(free) api_port=$(free)
began=$(date +%s)
qemu-system-x86_64 -accel "${VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 2048 -display none -no-reboot -nodefaults \
    -serial "file:$work/console" -kernel "$kernel/boot/vmlinuz-$release" -initrd "$work/first.cpio" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off hugepages=16 cgroup_no_v1=all ${VM_APPEND:-}" \
    -drive "file=$work/disk,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk -device virtio-rng-pci \
    -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$shell_port-10.0.2.15:7000,hostfwd=tcp:127.0.0.1:$api_port-10.0.2.15:6443" \
    -device virtio-net-pci,netdev=net &
qemu=$!

. tests/judge.subr
. tests/vm/guest/judge.subr
until_within 120 "the machine boots" vm true
echo "== Linux $(vm 'uname -r'), cgroup v2: $(vm 'cat /sys/fs/cgroup/cgroup.controllers'); up after $(($(date +%s) - began)) s"
serve
# What fails is counted, and the rest is judged all the same.
set +e
for suite in $suites; do
    echo "== $suite"
    . "tests/vm/$suite.sh"
done
if [ -n "${VM_HOLD:-}" ]; then
    echo "== held: KUBECONFIG=$KUBECONFIG; curl --data-binary 'COMMAND' http://127.0.0.1:$shell_port/cgi-bin/sh; Enter ends it"
    # A wait ends at a signal, and so the machine does.
    read -r _ || { sleep infinity & wait $!; }
fi
echo "== $passed as they must be, $failed not; $(($(date +%s) - began)) s"
[ "$failed" = 0 ] || { vm 'tail -n 30 /data/log; dmesg | tail -n 20' >&2; exit 1; }
