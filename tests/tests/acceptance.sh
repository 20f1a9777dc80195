# The acceptance tour of tests/acceptance.rs: bash, kubectl, an imported busybox:test; WORK is a directory for files.
set -euo pipefail
trap 'echo "line $LINENO failed" >&2' ERR
echo "data directory $CORACLE_DATA_DIR"
ok() { echo "ok: $1"; }
is() { [ "$1" = "$2" ] || { echo "got: $1; wanted: $2" >&2; return 1; }; }
missing() { [[ $("$@" 2>&1 || true) == *NotFound* ]]; }
field() { kubectl -n tour get "$1" -o "jsonpath=$2"; }

kubectl create namespace tour
cat >"$WORK/web.yaml" <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "hello from config\n", GREETING: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: httpd
        image: busybox:test
        imagePullPolicy: Never
        command: [httpd, -f, -p, "8080", -h, /www]
        envFrom: [{configMapRef: {name: page}}]
        volumeMounts: [{name: www, mountPath: /www}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      volumes: [{name: www, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
YAML
kubectl -n tour apply -f "$WORK/web.yaml"
kubectl -n tour rollout status deployment/web --timeout=90s
wide=$(kubectl -n tour get pods -o wide --no-headers)
is "$(grep -c Running <<<"$wide")" 3
is "$(awk '{print $6}' <<<"$wide" | grep -c '^10\.42\.')" 3
is "$(kubectl -n tour exec deployment/web -- sh -c 'echo $GREETING')" hello
kubectl -n tour apply -f "$WORK/web.yaml" | tee "$WORK/again"
is "$(grep -c unchanged "$WORK/again")" 3
ok applied

kubectl -n tour run ask --image=busybox:test --image-pull-policy=Never --restart=Never -- \
    sh -c 'wget -qO- http://web && wget -qO- http://web.tour.svc.cluster.local'
kubectl -n tour wait pod/ask --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s
is "$(kubectl -n tour logs ask)" $'hello from config\nhello from config'
kubectl -n tour delete pod ask
ok "asked by name"

image='{.spec.template.spec.containers[0].image}'
kubectl -n tour set image deployment/web httpd=busybox:next
kubectl -n tour rollout status deployment/web --timeout=90s
is "$(field deployment/web "$image")" busybox:next
is "$(kubectl -n tour rollout history deployment/web | grep -c '^[12] ')" 2
ok rolled
kubectl -n tour rollout undo deployment/web
kubectl -n tour rollout status deployment/web --timeout=90s
is "$(field deployment/web "$image")" busybox:test
ok undone
kubectl -n tour scale deployment/web --replicas=1
kubectl -n tour wait deployment/web --for=jsonpath='{.status.replicas}'=1 --timeout=60s
ok scaled
pod=$(kubectl -n tour get pods -l app=web --field-selector=status.phase=Running -o jsonpath='{.items[0].metadata.name}')
kubectl -n tour delete pod "$pod"
kubectl -n tour rollout status deployment/web --timeout=60s
missing kubectl -n tour get pod "$pod"
ok replaced

kubectl -n tour patch configmap page -p '{"data":{"index.html":"changed\n"}}'
kubectl -n tour exec deployment/web -- sh -c 'until busybox grep -q changed /www/index.html; do sleep 0.1; done'
ok changed

kubectl -n tour run talk --image=busybox:test --image-pull-policy=Never -- \
    sh -c 'echo forwarded > /tmp/index.html; httpd -p 8080 -h /tmp; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done'
kubectl -n tour wait pod/talk --for=condition=Ready --timeout=60s
# head ends the follower by closing its pipe.
is "$( (kubectl -n tour logs -f talk || true) | head -n 3)" $'line 0\nline 1\nline 2'
ok logs
# script gives it a real terminal.
script -qec "kubectl -n tour exec -it talk -- sh -c 'test -t 0 && test -t 1 && busybox tty'" /dev/null </dev/null | grep /dev/pts/ >/dev/null
ok exec
echo carried >"$WORK/there"
kubectl -n tour cp "$WORK/there" talk:/tmp/x
kubectl -n tour cp talk:/tmp/x "$WORK/back"
is "$(cat "$WORK/back")" carried
ok copied
coproc FORWARD { exec kubectl -n tour port-forward pod/talk :8080; }
read -r line <&"${FORWARD[0]}"
port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\) .*/\1/p' <<<"$line")
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET / HTTP/1.0\r\n\r\n' >&3
grep -q forwarded <&3
exec 3>&-
kill "$FORWARD_PID"
ok forwarded

kubectl explain deployment.spec.strategy | grep rollingUpdate >/dev/null
ok explained
kubectl delete namespace tour --timeout=90s
missing kubectl get namespace tour
ok deleted
