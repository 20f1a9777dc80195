# In a container of another runtime: the root of what is seen of v2 is a group as any other, with processes in it. And with a part of the controllers.
# shellcheck shell=sh disable=SC2154
down() { # down DIRECTORY: nothing is left of the cluster
    stop
    vm "coracle killall -d $1 >/dev/null 2>&1; rm -rf $1"
}
box() { # box CONTROLLERS: starts a cluster as it is in such a container, where another process has the container's group, too
    vm "cd /; controllers=\$(cat /sys/fs/cgroup/cgroup.subtree_control)
        for c in \$controllers; do echo -\$c; done | while read -r c; do echo \$c >/sys/fs/cgroup/cgroup.subtree_control; done
        for c in $1; do echo +\$c >/sys/fs/cgroup/cgroup.subtree_control; done
        mkdir -p /sys/fs/cgroup/box; echo \$\$ >/sys/fs/cgroup/box/cgroup.procs
        setsid /bin/unshare --mount --cgroup sh -c 'umount /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup; sleep 98765 & exec coracle server -d /data/box' >>/data/log 2>&1 &
        for _ in \$(seq 300); do grep -qE 'ready; KUBECONFIG|cannot be a node' /data/log && break; sleep 0.1; done; cat /data/log"
}
down /var/lib/coracle
is "killall leaves no group" "" "$(vm 'ls -d /sys/fs/cgroup/coracle-* 2>/dev/null')"
like "started" "*ready; KUBECONFIG*" "$(box "cpu memory pids")"
admin
vm 'coracle images -d /data/box import /images/busybox.tar >/dev/null'
groups=$(vm 'ls -d /sys/fs/cgroup/box/coracle-*')
pod inside "\"containers\":[{\"name\":\"c\",$waits,\"resources\":{\"limits\":{\"cpu\":\"100m\",\"memory\":\"32Mi\"}}}]"
ready inside
is "limits hold in it" "10000 100000 33554432" "$(vm "cd $(group inside c) && echo \$(cat cpu.max memory.max)")"
like "what was in its root has a group of its own" "*coracle*sleep*" "$(vm "cat /sys/fs/cgroup/box/init/cgroup.procs | while read -r p; do cat /proc/\$p/comm; done" | tr '\n' ' ')"
is "the root is empty" "" "$(vm 'cat /sys/fs/cgroup/box/cgroup.procs')"
is "exec works" "0::/" "$(kubectl exec inside -- cat /proc/self/cgroup)"
gone inside
down /data/box
# Its groups are not where its killall looks from here.
vm 'echo 1 >/sys/fs/cgroup/box/cgroup.kill; sleep 0.5; find /sys/fs/cgroup/box -depth -type d -exec rmdir {} +'
like "without the cpu controller it does not begin, and says why" "*no cpu controller*" "$(box "memory pids")"
vm 'echo 1 >/sys/fs/cgroup/box/cgroup.kill; sleep 0.5; rmdir /sys/fs/cgroup/box; rm -rf /data/box; : >/data/log'
serve
