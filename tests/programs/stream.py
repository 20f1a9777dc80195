"""The Python client's streams, judged: stream.py NAMESPACE POD, a pod whose container talks; prints `ok` or `NOT OK` a line."""
import json
import socket
import sys
import threading
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

namespace, pod = sys.argv[1:]
config.load_kube_config()
core = client.CoreV1Api()


def judge(what, good, got=""):
    print(f"ok      {what}" if good else f"NOT OK  {what}: {got!r}")


def execute(command, **more):
    options = {"stderr": True, "stdin": False, "stdout": True, "tty": False, "container": "talks", **more}
    return stream(core.connect_get_namespaced_pod_exec, pod, namespace, command=command, **options)


said = execute(["echo", "one"])
judge("python: exec gives what was said", said == "one\n", said)

talk = execute(["sh", "-c", "echo out; echo err >&2; exit 7"], _preload_content=False)
talk.run_forever(timeout=20)
got = (talk.read_stdout(), talk.read_stderr(), talk.returncode)
judge("python: output, errors and exit code apart", got == ("out\n", "err\n", 7), got)

talk = execute(["cat"], stdin=True, _preload_content=False)
talk.write_stdin("first\n")
line = talk.readline_stdout(timeout=20)
judge("python: what is written comes back", line == "first", line)
talk.write_stdin("second\n")
line = talk.readline_stdout(timeout=20)
judge("python: and again over the same stream", line == "second", line)
talk.close()

talk = execute(["sh", "-c", "head -c 1000000 | wc -c"], stdin=True, _preload_content=False, binary=True)
for _ in range(10):
    talk.write_stdin(b"x" * 100_000)
talk.run_forever(timeout=30)
said = talk.read_stdout()
judge("python: a megabyte of bytes into it", said.strip() == b"1000000", said)

talk = execute(["sh", "-c", "head -c 3000000 /dev/zero"], _preload_content=False, binary=True)
talk.run_forever(timeout=30)
said = talk.read_stdout()
judge("python: three megabytes out of it", said == bytes(3_000_000), len(said))

talk = execute(["sh"], stdin=True, tty=True, stderr=False, _preload_content=False)
talk.write_channel(4, json.dumps({"Width": 133, "Height": 44}))
talk.write_stdin("until stty size | grep '44 133'; do :; done; tty; exit 5\n")
talk.run_forever(timeout=20)
said = talk.read_stdout()
judge("python: a terminal of its size", "/dev/pts/" in said and "44 133" in said and talk.returncode == 5, (said, talk.returncode))

try:
    execute(["true"], container="none")
    judge("python: a container that is not there is told", False)
except ApiException as error:
    judge("python: a container that is not there is told", "container none is not valid" in str(error), str(error))

talk = execute(["/no/such"], _preload_content=False)
talk.run_forever(timeout=20)
said = json.loads(talk.read_channel(3))
causes = [cause["message"] for cause in said.get("details", {}).get("causes", [])]
judge("python: a program that is not there is told", said["reason"] == "InternalError" and "/no/such" in "".join(causes), said)

talk = stream(core.connect_get_namespaced_pod_attach, pod, namespace, container="talks", stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
talk.write_stdin("hello\n")
heard = ""
limit = time.time() + 20
while "heard hello" not in heard and time.time() < limit:
    talk.update(timeout=1)
    heard += talk.read_stdout(timeout=1) or ""
talk.close()
judge("python: attach speaks with the first process", "heard hello" in heard, heard)


def fetched(forward):
    end = forward.socket(8080)
    end.setblocking(True)
    end.settimeout(20)
    end.sendall(b"GET /big HTTP/1.0\r\n\r\n")
    said = b""
    while more := end.recv(65536):
        said += more
    end.close()
    return said.partition(b"\r\n\r\n")[2]


forward = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports="8080")
said = fetched(forward)
judge("python: a forwarded port", len(said) == 300_000, len(said))
judge("python: without an error", forward.error(8080) is None, forward.error(8080))
lengths = []
threads = [threading.Thread(target=lambda: lengths.append(len(fetched(
    portforward(client.CoreV1Api(client.ApiClient()).connect_get_namespaced_pod_portforward, pod, namespace, ports="8080"))))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
judge("python: eight of them at once", lengths == [300_000] * 8, lengths)
forward = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports="8080,9")
closed = forward.socket(9)
closed.setblocking(True)
closed.settimeout(20)
try:
    closed.sendall(b"x")
    closed.recv(1)
except (OSError, socket.timeout):
    pass
judge("python: a port where nobody listens is told", "9" in (forward.error(9) or ""), forward.error(9))
judge("python: and its neighbour still works", len(fetched(forward)) == 300_000)

seen = []


def look():
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, label_selector="stream=python", timeout_seconds=30):
        seen.append((event["type"], event["object"].data.get("value")))
        if event["type"] == "DELETED":
            return


looking = threading.Thread(target=look)
looking.start()
body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="stream", labels={"stream": "python"}), data={"value": "1"})
core.create_namespaced_config_map(namespace, body)
core.patch_namespaced_config_map("stream", namespace, {"data": {"value": "2"}})
core.delete_namespaced_config_map("stream", namespace)
looking.join()
# The watch may begin after the first of them.
judge("python: a watch sees what happens", seen[-1:] == [("DELETED", "2")], seen)

lines = []
follower = watch.Watch()
for line in follower.stream(core.read_namespaced_pod_log, pod, namespace, container="ticks", follow=True):
    lines.append(line)
    if len(lines) == 5:
        follower.stop()
judge("python: a log is followed", lines == [f"tick {i}" for i in range(5)], lines)
