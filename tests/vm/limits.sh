# Limits hold: memory, processes, CPU; and what crosses them is told as upstream tells it. A pod ends whole.
# shellcheck shell=sh disable=SC2154
pod oom '"restartPolicy":"Never","containers":[{"name":"c","image":"busybox:test","command":["sh","-c","tail /dev/zero & wait; echo survived; sleep 1000"],
    "resources":{"limits":{"memory":"32Mi"}}}]'
pod podoom '"restartPolicy":"Never","resources":{"limits":{"memory":"32Mi"}},
    "containers":[{"name":"c","image":"busybox:test","command":["tail","/dev/zero"]}]'
pod fork '"restartPolicy":"Never","containers":[{"name":"c","image":"busybox:test","command":["sh","-c","i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; echo all of them"]}]'
pod busy '"containers":[{"name":"c","image":"busybox:test","command":["sh","-c","while :; do :; done"],"resources":{"limits":{"cpu":"50m","memory":"32Mi"}}}]'
pod children "\"containers\":[{\"name\":\"c\",\"image\":\"busybox:test\",\"command\":[\"sh\",\"-c\",\"trap : TERM; setsid sleep 98765 & setsid sleep 98765 & while :; do wait; done\"]},{\"name\":\"d\",$waits}]"
ready busy children
for name in oom podoom; do
    ended $name
    is "$name: the kernel's kill is told" "OOMKilled 137" "$(get $name '{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}')"
done
is "the container was killed as a whole" "" "$(kubectl logs oom)"
tried() { [ -n "$(kubectl logs fork)" ]; }
until_within 60 "it forks" tried || true
like "a container that forks without end stops at its pod's limit" "*Resource temporarily unavailable*" "$(kubectl logs fork)"
like "CPU is throttled" "[1-9]*" "$(vm "awk '/nr_throttled/ {print \$2}' $(group busy c)/cpu.stat")"
ids=$(vm "cat $(group children c)/cgroup.procs | wc -l")
like "processes of sessions of their own are in the container's group" "[3-9]" "$ids"
kubectl delete pod children --grace-period=1 --wait=true >/dev/null
is "a pod's end leaves none of its processes" "" "$(vm "pidof sleep | xargs -rn1 sh -c 'grep -l 98765 /proc/\$0/cmdline'")"
gone oom podoom fork busy
