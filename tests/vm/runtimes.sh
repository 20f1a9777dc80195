# Other OCI runtimes by RuntimeClass: crun and runc of Debian make their containers in the same tree, under the same limits.
# shellcheck shell=sh disable=SC2154
for name in crun runc; do
    printf '{"apiVersion":"node.k8s.io/v1","kind":"RuntimeClass","metadata":{"name":"%s"},"handler":"%s"}' $name $name | kubectl apply -f - >/dev/null
    pod $name "\"runtimeClassName\":\"$name\",\"containers\":[{\"name\":\"c\",$waits,\"resources\":{\"limits\":{\"memory\":\"48Mi\",\"cpu\":\"100m\"}}}]"
    pod $name-oom "\"runtimeClassName\":\"$name\",\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"busybox:test\",
        \"command\":[\"tail\",\"/dev/zero\"],\"resources\":{\"limits\":{\"memory\":\"32Mi\"}}}]"
done
ready crun runc
for name in crun runc; do
    is "$name: limits" "17 10000 100000 50331648 1 0" "$(vm "cd $(group $name c) && echo \$(cat cpu.weight cpu.max memory.max memory.oom.group memory.swap.max)")"
    is "$name: its processes are in its group" 1 "$(vm "wc -l <$(group $name c)/cgroup.procs")"
    is "$name: exec joins it" "0::/" "$(kubectl exec $name -- cat /proc/self/cgroup)"
    is "$name: devices" "yes no " "$(kubectl exec $name -- sh -c 'for n in "c 1 3" "c 1 11"; do rm -f /n; mknod /n $n; (head -c 1 </n >/dev/null) 2>/dev/null && echo yes || echo no; done' | tr '\n' ' ')"
    ended $name-oom
    is "$name: the kernel's kill is told" "OOMKilled 137" "$(get $name-oom '{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}')"
    kubectl patch pod $name --subresource resize --patch '{"spec":{"containers":[{"name":"c","resources":{"requests":{"memory":"64Mi"},"limits":{"memory":"64Mi"}}}]}}' >/dev/null
    larger() { [ "$(vm "cat $(group $name c)/memory.max")" = 67108864 ]; }
    until_within 20 "it grows" larger || true
    is "$name: resize" 67108864 "$(vm "cat $(group $name c)/memory.max")"
done
left=$(group crun) right=$(group runc)
gone crun runc crun-oom runc-oom
absent() { vm "[ ! -e $left ] && [ ! -e $right ]"; }
until_within 20 "the groups go" absent || true
if absent; then holds "they leave no groups"; else broken "they leave no groups" "$(vm "find $left $right")"; fi
