# The dataplane on this kernel: programs on the group of the cluster translate Services before a packet is made.
# shellcheck shell=sh disable=SC2154
pod web '"hostname":"web","containers":[{"name":"c","image":"busybox:test","command":["sh","-c","mkdir /w; echo served >/w/index.html; exec httpd -f -p 8080 -h /w"]}]'
pod asks "\"containers\":[{\"name\":\"c\",$waits}]"
kubectl label pod web app=web >/dev/null
printf '{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"port":80,"targetPort":8080,"nodePort":30080}],"type":"NodePort"}}' | kubectl apply -f - >/dev/null
ready web asks
answers() { [ "$(kubectl exec asks -- timeout 5 wget -q -O - http://web)" = served ]; }
until_within 30 "it answers" answers || true
is "a Service answers to a pod by its name" served "$(kubectl exec asks -- timeout 5 wget -q -O - http://web)"
is "and to the machine by its address" served "$(vm "timeout 5 wget -q -O - http://$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')")"
is "and at the node's port" served "$(vm "timeout 5 wget -q -O - http://10.0.2.15:30080")"
kubectl delete service web >/dev/null
gone web asks
