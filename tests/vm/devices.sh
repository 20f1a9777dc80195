# Devices: a program on the container's group allows the harmless ones, those that it was given, and everything where it is privileged.
# shellcheck shell=sh disable=SC2154
pod plain "\"containers\":[{\"name\":\"c\",$waits}]"
pod root "\"containers\":[{\"name\":\"c\",$waits,\"securityContext\":{\"privileged\":true}}]"
ready plain root
may() { # may POD 'KIND MAJOR MINOR'...: which of these nodes it can open
    on=$1; shift
    # A node needs a file system that takes devices; the container's own is one.
    kubectl exec "$on" -- sh -c 'for n; do rm -f /n; mknod /n $n && (head -c 1 </n >/dev/null) 2>/dev/null && echo yes || echo no; done' sh "$@" | tr '\n' ' '
}
is "null, zero, urandom" "yes yes yes " "$(may plain 'c 1 3' 'c 1 5' 'c 1 9')"
is "neither memory nor kernel messages nor disks" "no no no " "$(may plain 'c 1 1' 'c 1 11' 'b 254 0')"
is "a privileged container has all of them" "yes yes yes " "$(may root 'c 1 3' 'c 1 11' 'b 254 0')"
is "and sees the machine's own nodes" "yes" "$(kubectl exec root -- sh -c '[ -b /dev/vda ] && echo yes')"
is "exec is under the same rules" "no " "$(may plain 'b 254 0')"
gone plain root
