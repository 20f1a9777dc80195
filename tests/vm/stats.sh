# What is measured comes from v2's files: the kubelet's summary, its metrics, kubectl top; the node is short by its own memory.
# shellcheck shell=sh disable=SC2154
pod uses '"containers":[{"name":"c","image":"busybox:test","command":["sh","-c","head -c 50000000 /dev/zero >/dev/shm/full; while :; do :; done"],
    "resources":{"requests":{"memory":"80Mi"},"limits":{"cpu":"300m"}}}]'
ready uses
summary() { kubectl get --raw /api/v1/nodes/vm/proxy/stats/summary | python3 -c "
import json, sys
c = [c for p in json.load(sys.stdin)['pods'] if p['podRef']['name'] == 'uses' for c in p['containers']][0]
print(c['memory']['workingSetBytes'] >= 50000000, c['memory']['workingSetBytes'] < 70000000, c['cpu']['usageCoreNanoSeconds'] > 0, c['memory']['rssBytes'] > 0)"; }
full() { [ "$(summary)" = "True True True True" ]; }
until_within 60 "it is measured" full || true
is "summary: working set with what is in memory's files, CPU time, anonymous memory" "True True True True" "$(summary)"
like "metrics/resource" '*container_memory_working_set_bytes{container="c",namespace="default",pod="uses"} [5-6]*' \
    "$(kubectl get --raw /api/v1/nodes/vm/proxy/metrics/resource | grep working_set)"
top() { kubectl top pod uses --no-headers | awk '{exit !($2 + 0 > 100 && $3 + 0 >= 47 && $3 + 0 < 70)}'; }
until_within 60 "top tells" top || true
if top; then holds "kubectl top: CPU and memory"; else broken "kubectl top: CPU and memory" "$(kubectl top pod uses --no-headers)"; fi
like "kubectl top node" "vm *m *% *Mi *%*" "$(kubectl top node --no-headers | tr -s ' ')"
free=$(vm "awk '/MemAvailable/ {print int(\$2 / 1024)}' /proc/meminfo")
stop
serve "--eviction-hard=memory.available\\<$((free + 300))Mi"
ended uses
is "a node short of memory ends who uses more than it asked for" "Evicted" "$(get uses '{.status.reason}')"
is "and says so" True "$(kubectl get node vm -o 'jsonpath={.status.conditions[?(@.type=="MemoryPressure")].status}')"
stop
serve
gone uses
