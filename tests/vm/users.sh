# Pods with users of their own (hostUsers: false): limits as any pod's, and no rights on the machine. Kernels before 6.3 cannot, and say so.
# shellcheck shell=sh disable=SC2154
pod users "\"hostUsers\":false,\"containers\":[{\"name\":\"c\",$waits,\"resources\":{\"limits\":{\"memory\":\"32Mi\",\"cpu\":\"100m\"}}}]"
case $(vm 'uname -r') in
[1-5].* | 6.[0-2].*)
    told() { kubectl get events --field-selector involvedObject.name=users | grep -q 'id-mapped'; }
    until_within 30 "it is refused" told || true
    like "this kernel has no id-mapped tmpfs, and the pod says so" "*id-mapped mounts*" "$(kubectl get events --field-selector involvedObject.name=users | grep Failed)"
    ;;
*)
    ready users
    like "root is nobody on the machine" "[1-9]*" "$(vm "stat -c %u /proc/\$(head -n 1 $(group users c)/cgroup.procs)/exe; stat -c %u /proc/\$(head -n 1 $(group users c)/cgroup.procs)")"
    is "and root in the container" 0 "$(kubectl exec users -- id -u)"
    is "limits" "17 10000 100000 33554432" "$(vm "cd $(group users c) && echo \$(cat cpu.weight cpu.max memory.max)")"
    is "exec joins its group" "0::/" "$(kubectl exec users -- cat /proc/self/cgroup)"
    like "and no file of the group is its own" "*ermission denied*" "$(kubectl exec users -- sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>&1 | sed 's/Read-only file system/permission denied/')"
    ;;
esac
gone users
