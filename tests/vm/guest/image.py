"""Writes the image `busybox:test` as `docker save` does: image.py BUSYBOX ARCHIVE."""
import hashlib
import io
import json
import subprocess
import sys
import tarfile

busybox, archive = sys.argv[1:]


def add(tar, name, content=b"", mode=0o755, kind=tarfile.REGTYPE, target=""):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.type, entry.linkname = len(content), mode, kind, target
    tar.addfile(entry, io.BytesIO(content))


layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as tar:
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"]:
        add(tar, name, mode=0o1777 if name == "tmp" else 0o755, kind=tarfile.DIRTYPE)
    with open(busybox, "rb") as program:
        add(tar, "bin/busybox", program.read())
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
    add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644)
config = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
}
manifest = [{"Config": "config.json", "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}]
with tarfile.open(archive, "w") as tar:
    add(tar, "config.json", json.dumps(config).encode(), 0o644)
    add(tar, "layer.tar", layer.getvalue(), 0o644)
    add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
