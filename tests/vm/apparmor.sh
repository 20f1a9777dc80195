# AppArmor: a pod that asks to be confined is refused where nothing confines, and confined where something does, with all that is executed in it.
# shellcheck shell=sh disable=SC2154
asks() { # asks TYPE [NAME]: the field of a security context
    printf '"appArmorProfile":{"type":"%s"%s}' "$1" "${2:+,\"localhostProfile\":\"$2\"}"
}
confined() { # confined NAME CONTEXT [FIELDS]: a pod whose container has this security context
    pod "$1" "${3:-}\"containers\":[{\"name\":\"c\",$waits,\"securityContext\":{$2}}]"
}
under() { kubectl exec "$1" -- cat "/proc/${2:-self}/attr/current"; } # under POD [PROCESS]: its profile, and how it holds
state() { get "$1" '{.status.phase} {.status.reason}'; }
waiting() { get "$1" '{.status.containerStatuses[0].state.waiting.reason}'; }
is_waiting() { [ "$(waiting "$1")" = CreateContainerError ]; }
is "the kernel has it on" Y "$(vm 'cat /sys/module/apparmor/parameters/enabled')"

# Its files are not mounted: as on a machine without it.
confined wants "$(asks RuntimeDefault)"
confined names "$(asks Localhost mine)"
confined open "$(asks Unconfined)"
confined plain ""
ended wants
ended names
ready open plain
is "without it, who asks for the default profile is refused" "Failed AppArmor" "$(state wants)"
is "and who names one" "Failed AppArmor" "$(state names)"
is "who does not ask runs" "unconfined unconfined" "$(under open) $(under plain)"
gone wants names open plain

vm 'mount -t securityfs security /sys/kernel/security && mv /bin/apparmor_parser /data/
    printf "profile mine flags=(attach_disconnected) {\n file,\n capability,\n network,\n signal,\n deny /tmp/secret rw,\n}\n" | /data/apparmor_parser -Kr 2>/dev/null'
stop
serve
like "the node says that it has it" "*AppArmor enabled" "$(kubectl get nodes -o 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].message}')"
confined wants "$(asks RuntimeDefault)"
confined plain ""
ready plain
until_within 60 "it is told" is_waiting wants || true
like "without the program that loads profiles, who asks for the default one waits" "CreateContainerError *apparmor_parser*" \
    "$(waiting wants) $(get wants '{.status.containerStatuses[0].state.waiting.message}')"
is "who does not ask runs" unconfined "$(under plain)"
gone plain
vm 'mv /data/apparmor_parser /bin/'
kubectl wait --for=condition=Ready --timeout=90s pod/wants >/dev/null
is "with it, it starts" "coracle-default (enforce)" "$(under wants)"

confined plain ""
confined user '"runAsUser":1000,"allowPrivilegeEscalation":false'
confined mine "$(asks Localhost mine)"
confined other "$(asks Localhost not-there)"
confined open "$(asks Unconfined)"
confined own "$(asks Unconfined)" "\"securityContext\":{$(asks RuntimeDefault)},"
confined admin '"capabilities":{"add":["SYS_ADMIN","SYS_PTRACE"]}'
confined root '"privileged":true'
confined root-mine "\"privileged\":true,$(asks Localhost mine)"
printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"old","annotations":{"container.apparmor.security.beta.kubernetes.io/c":"localhost/mine"}},
    "spec":{"containers":[{"name":"c",%s}]}}' "$waits" | kubectl apply -f - >/dev/null 2>&1
ready plain user mine open own admin root root-mine old
for name in plain user admin; do
    is "$name: the default profile holds for its first process and for exec" "coracle-default (enforce) coracle-default (enforce)" "$(under $name 1) $(under $name)"
done
is "the profile that is named" "mine (enforce) mine (enforce)" "$(under mine 1) $(under mine)"
is "by the old annotation" "mine (enforce) mine (enforce)" "$(under old 1) $(under old)"
is "unconfined, as asked" "unconfined unconfined" "$(under open 1) $(under open)"
is "the container wins over its pod" unconfined "$(under own)"
is "a privileged container is unconfined" unconfined "$(under root)"
is "but for a profile that is named" "mine (enforce)" "$(under root-mine)"
like "what the profile forbids is refused, to whoever executes in it" "*Permission denied*rest" "$(kubectl exec mine -- sh -c 'echo x >/tmp/secret; echo rest >/tmp/x; cat /tmp/x' 2>&1 | tr '\n' ' ' | sed 's/ $//')"
like "the default one forbids mounts" "*ermission denied*" "$(kubectl exec admin -- mount -t tmpfs x /tmp 2>&1)"
is "and lets the container do its work" "x ended" \
    "$(kubectl exec plain -- sh -c 'echo x >/tmp/x; echo y >/proc/self/comm && sleep 1000 & sleep 0.1; kill $!; wait $!; [ $? = 143 ] && echo $(cat /tmp/x) ended')"
until_within 60 "it is told" is_waiting other || true
like "a profile that is not loaded is waited for" "CreateContainerError *not-there*" "$(waiting other) $(get other '{.status.containerStatuses[0].state.waiting.message}')"
vm 'echo "profile not-there flags=(attach_disconnected) { file, signal, }" | apparmor_parser -Kr 2>/dev/null'
kubectl wait --for=condition=Ready --timeout=90s pod/other >/dev/null
is "until it is there" "not-there (enforce)" "$(under other)"
began_at=$(date +%s)
kubectl delete pod plain mine --grace-period=2 --wait=true >/dev/null
if [ $(($(date +%s) - began_at)) -lt 30 ]; then holds "confined pods end when they are told to"; else broken "confined pods end when they are told to" "late"; fi
for name in crun runc; do
    printf '{"apiVersion":"node.k8s.io/v1","kind":"RuntimeClass","metadata":{"name":"%s"},"handler":"%s"}' $name $name | kubectl apply -f - >/dev/null
    confined $name "" "\"runtimeClassName\":\"$name\","
done
ready crun runc
for name in crun runc; do
    is "$name confines, too" "coracle-default (enforce) coracle-default (enforce)" "$(under $name 1) $(under $name)"
done
gone wants user other open own admin root root-mine old crun runc

# The other suites judge a machine without it.
vm 'umount /sys/kernel/security'
stop
serve
