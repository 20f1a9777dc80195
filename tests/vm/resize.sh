# In-place resize changes the groups of a container that runs, and its status tells what the groups have.
# shellcheck shell=sh disable=SC2154
sizes() { printf '"resources":{"requests":{"cpu":"%s","memory":"%s"},"limits":{"cpu":"%s","memory":"%s"}}' "$@"; }
pod grows "\"containers\":[{\"name\":\"c\",$waits,$(sizes 100m 32Mi 200m 64Mi)},{\"name\":\"d\",$waits,\"resizePolicy\":[{\"resourceName\":\"memory\",\"restartPolicy\":\"RestartContainer\"}],$(sizes 50m 16Mi 50m 32Mi)}]"
ready grows
c=$(group grows c) p=$(group grows)
now() { vm "cd $1 && echo \$(cat cpu.weight cpu.max memory.max memory.low memory.high)"; }
is "as it was made" "17 20000 100000 67108864 33554432 63750144" "$(now "$c")"
is "its pod" "24 25000 100000 100663296" "$(vm "cd $p && echo \$(cat cpu.weight cpu.max memory.max)")"
resize() { kubectl patch pod grows --subresource resize --patch "{\"spec\":{\"containers\":[$1]}}" >/dev/null; }
resized() { [ "$(get grows '{.status.containerStatuses[?(@.name=="c")].resources.limits.memory}')" = "$1" ] && [ -z "$(get grows '{.status.conditions[?(@.type=="PodResizeInProgress")].status}')" ]; }
resize "{\"name\":\"c\",$(sizes 300m 48Mi 400m 96Mi)}"
until_within 20 "it grows" resized 96Mi || true
is "larger" "40 40000 100000 100663296 50331648 95629312" "$(now "$c")"
is "its pod" "45 45000 100000 134217728" "$(vm "cd $p && echo \$(cat cpu.weight cpu.max memory.max)")"
is "the status tells it" '{"limits":{"cpu":"400m","memory":"96Mi"},"requests":{"cpu":"300m","memory":"48Mi"}} 0' \
    "$(get grows '{.status.containerStatuses[?(@.name=="c")].resources} {.status.containerStatuses[?(@.name=="c")].restartCount}')"
is "the container sees it" "100663296" "$(kubectl exec grows -c c -- cat /sys/fs/cgroup/memory.max)"
resize "{\"name\":\"c\",$(sizes 100m 32Mi 200m 40Mi)}"
until_within 20 "it shrinks" resized 40Mi || true
is "smaller" "17 20000 100000 41943040 33554432 41103360" "$(now "$c")"
kubectl exec grows -c c -- sh -c 'head -c 30000000 /dev/zero >/dev/shm/full'
resize "{\"name\":\"c\",$(sizes 100m 8Mi 200m 16Mi)}"
refused() { [ -n "$(get grows '{.status.conditions[?(@.type=="PodResizeInProgress")].message}')" ]; }
until_within 20 "it is refused" refused || true
like "not below what it uses" "*memory limit (16777216) below current usage*" "$(get grows '{.status.conditions[?(@.type=="PodResizeInProgress")].message}')"
is "the limit stays" 41943040 "$(vm "cat $c/memory.max")"
is "the status tells what there is" 40Mi "$(get grows '{.status.containerStatuses[?(@.name=="c")].resources.limits.memory}')"
kubectl exec grows -c c -- rm /dev/shm/full
until_within 60 "there is room" resized 16Mi || true
is "when there is room it is done" 16777216 "$(vm "cat $c/memory.max")"
resize "{\"name\":\"d\",$(sizes 50m 24Mi 50m 48Mi)}"
anew() { [ "$(get grows '{.status.containerStatuses[?(@.name=="d")].restartCount}')" = 1 ] && ready grows; }
until_within 40 "it starts again" anew || true
is "where the policy says so the container starts again with its new limits" "50331648 1" \
    "$(vm "cat $(group grows d)/memory.max") $(get grows '{.status.containerStatuses[?(@.name=="d")].restartCount}')"
is "the other one went on" 0 "$(get grows '{.status.containerStatuses[?(@.name=="c")].restartCount}')"
gone grows

# Of the pod as a whole (KEP-5419): its group first, and the containers that have no limits of their own with it.
pod whole "$(sizes 100m 64Mi 200m 96Mi),\"containers\":[{\"name\":\"c\",$waits},{\"name\":\"d\",$waits,\"resources\":{\"limits\":{\"memory\":\"32Mi\"}}}]"
ready whole
p=$(group whole) c=$(group whole c) d=$(group whole d)
most() { vm "for g in $p $c $d; do cat \$g/cpu.max \$g/memory.max; done | tr '\n' ' '"; }
is "the pod and its containers, as they were made" "20000 100000 100663296 20000 100000 100663296 20000 100000 33554432 " "$(most)"
kubectl patch pod whole --subresource resize --patch "{\"spec\":{$(sizes 300m 96Mi 400m 128Mi)}}" >/dev/null
grown() { [ "$(get whole '{.status.resources.limits.memory}')" = "$1" ] && [ -z "$(get whole '{.status.conditions[?(@.type=="PodResizeInProgress")].status}')" ]; }
until_within 20 "it grows" grown 128Mi || true
is "larger" "40000 100000 134217728 40000 100000 134217728 40000 100000 33554432 " "$(most)"
kubectl exec whole -c c -- sh -c 'head -c 60000000 /dev/zero >/dev/shm/full'
kubectl patch pod whole --subresource resize --patch "{\"spec\":{$(sizes 100m 32Mi 200m 48Mi)}}" >/dev/null
too_full() { [ -n "$(get whole '{.status.conditions[?(@.type=="PodResizeInProgress")].message}')" ]; }
until_within 20 "it is refused" too_full || true
like "not below what it uses" "*memory limit (50331648) below current usage*" "$(get whole '{.status.conditions[?(@.type=="PodResizeInProgress")].message}')"
is "the limits stay" "40000 100000 134217728 40000 100000 134217728 40000 100000 33554432 " "$(most)"
kubectl exec whole -c c -- rm /dev/shm/full
until_within 60 "there is room" grown 48Mi || true
is "when there is room it is done" "20000 100000 50331648 20000 100000 50331648 20000 100000 33554432 " "$(most)"
is "nothing began anew" "0 0" "$(get whole '{.status.containerStatuses[*].restartCount}')"
gone whole
