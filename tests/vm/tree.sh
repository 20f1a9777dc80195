# The tree of groups: classes, pods and containers, with what upstream's kubelet sets in each; nothing in an inner node, and nothing left at the end.
# shellcheck shell=sh disable=SC2154
file() { vm "cat $1"; } # file PATH
pod best "\"containers\":[{\"name\":\"c\",$waits}]"
pod burst "\"containers\":[{\"name\":\"c\",$waits,\"resources\":{\"requests\":{\"cpu\":\"250m\",\"memory\":\"32Mi\"},\"limits\":{\"memory\":\"64Mi\"}}}]"
pod whole "\"containers\":[{\"name\":\"c\",$waits,\"resources\":{\"limits\":{\"cpu\":\"200m\",\"memory\":\"64Mi\",\"hugepages-2Mi\":\"4Mi\"}}}]"
pod own "\"resources\":{\"requests\":{\"cpu\":\"300m\",\"memory\":\"60Mi\"},\"limits\":{\"cpu\":\"500m\",\"memory\":\"100Mi\"}},
    \"containers\":[{\"name\":\"c\",$waits},{\"name\":\"d\",$waits,\"resources\":{\"limits\":{\"memory\":\"50Mi\"}}}]"
ready best burst whole own
settled() { [ "$(file "$groups/kubepods/burstable/cpu.weight")" != 100 ] && [ "$(file "$groups/kubepods/besteffort/cpu.weight")" = 1 ]; }
until_within 10 "classes weigh" settled || true
is "best-effort pods together weigh the least that there is" 1 "$(file "$groups/kubepods/besteffort/cpu.weight")"
is "burstable pods together weigh what they ask for, 550m" 63 "$(file "$groups/kubepods/burstable/cpu.weight")"
all="cpu.weight cpu.max memory.max memory.swap.max memory.oom.group pids.max"
of() { vm "cd $1 && for f in $all; do echo \$f=\$(cat \$f); done" | tr '\n' ' '; } # of DIRECTORY
best=$(group best) burst=$(group burst) whole=$(group whole) own=$(group own)
like "a best-effort pod is in its class" "$groups/kubepods/besteffort/pod*" "$best"
like "a burstable pod is in its class" "$groups/kubepods/burstable/pod*" "$burst"
like "a guaranteed pod is beside the classes" "$groups/kubepods/pod*" "$whole"
like "a best-effort pod" "cpu.weight=1 cpu.max=max 100000 memory.max=max * pids.max=200 " "$(of "$best")"
is "its container" "cpu.weight=1 cpu.max=max 100000 memory.max=max memory.swap.max=0 memory.oom.group=1 pids.max=max " "$(of "$(group best c)")"
like "a burstable pod" "cpu.weight=35 cpu.max=max 100000 memory.max=67108864 *" "$(of "$burst")"
is "its container" "cpu.weight=35 cpu.max=max 100000 memory.max=67108864 memory.swap.max=0 memory.oom.group=1 pids.max=max " "$(of "$(group burst c)")"
like "a guaranteed pod" "cpu.weight=29 cpu.max=20000 100000 memory.max=67108864 *" "$(of "$whole")"
is "its container" "cpu.weight=29 cpu.max=20000 100000 memory.max=67108864 memory.swap.max=0 memory.oom.group=1 pids.max=max " "$(of "$(group whole c)")"
like "a pod with resources of its own" "cpu.weight=40 cpu.max=50000 100000 memory.max=104857600 *" "$(of "$own")"
like "its container without any has its pod's limits" "cpu.weight=59 cpu.max=50000 100000 memory.max=104857600 *" "$(of "$(group own c)")"
like "its container with a limit" "* memory.max=52428800 *" "$(of "$(group own d)")"
is "huge pages: as many as were asked for, reserved or used" "4194304 4194304" \
    "$(vm "echo \$(cat $whole/hugetlb.2MB.max $(group whole c)/hugetlb.2MB.rsvd.max)")"
is "huge pages: none for others" 0 "$(file "$burst/hugetlb.2MB.max")"
is "requested memory of a guaranteed container is never reclaimed" 67108864 "$(file "$(group whole c)/memory.min")"
is "that of a burstable one last, and it is slowed down before its limit" "33554432 63750144" "$(vm "cd $(group burst c); echo \$(cat memory.low memory.high)")"
is "the same all the way up, or it would not hold" "33554432 96468992 163577856 67108864 67108864" \
    "$(vm "echo \$(cat $burst/memory.low $groups/kubepods/burstable/memory.low $groups/memory.low $groups/kubepods/memory.min $whole/memory.min)")"
is "what is reserved no pod takes" "$(vm "awk '/MemTotal/ {print (\$2 - 102400) * 1024}' /proc/meminfo")" "$(file "$groups/kubepods/memory.max")"
is "no process is in a node that has groups below it" "" "$(vm "find $groups -name cgroup.procs | while read -r f; do d=\${f%/*}
    if [ -s \$f ] && [ -n \"\$(cat \$f)\" ] && [ -n \"\$(find \$d -mindepth 1 -type d)\" ]; then echo \$d; fi; done")"
is "a container sees its own group as the root" "0::/" "$(kubectl exec burst -- cat /proc/self/cgroup)"
is "and its limits" "67108864" "$(kubectl exec burst -- cat /sys/fs/cgroup/memory.max)"
like "and cannot change them" "*Read-only file system*" "$(kubectl exec burst -- sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>&1)"
# An init system in a container moves everything out of the container's own group.
pod init "\"containers\":[{\"name\":\"c\",\"image\":\"busybox:test\",\"securityContext\":{\"privileged\":true},\"command\":[\"sh\",\"-c\",
    \"cd /sys/fs/cgroup && mkdir a && echo 1 >a/cgroup.procs && echo +memory +pids >cgroup.subtree_control && exec sleep 100000\"]}]"
ready init
is "a command in a container whose init has made groups joins the init's" "0::/a" "$(kubectl exec init -- cat /proc/self/cgroup)"
gone best burst whole own init
empty() { [ -z "$(vm "find $groups -type d -name 'pod*'")" ]; }
until_within 20 "the groups go" empty || true
is "pods leave no groups" "" "$(vm "find $groups -type d -name 'pod*'")"
