# Specs of Kubernetes' conformance suite that look into groups of cgroup v2: those of tests/conformance/passing-v2.txt, where the suite is given.
# shellcheck shell=sh disable=SC2154
if [ -n "${VM_SUITE:-}" ]; then
    specs=$(wc -l <tests/conformance/passing-v2.txt)
    ran=$(python3 tests/conformance/judge.py "$VM_SUITE" --specs tests/conformance/passing-v2.txt --jobs 2 --limit 10m --kubeconfig "$KUBECONFIG" --output "${VM_OUTPUT:-$work/specs}")
    like "all specs pass" "*Ran $specs of $specs: $specs passed*" "$ran"
else
    echo "not judged: VM_SUITE names no suite"
fi
