"""Writes an image of two directories, each a layer, as `docker save` does: image.py ARCHIVE NAME CONFIG BASE WHOLE.

The first layer is BASE, the second what WHOLE has beside it. Times are all zero: the same files give the same layer.
"""
import gzip
import hashlib
import json
import os
import platform
import sys
import tarfile

archive, name, config, base, whole = sys.argv[1:]


def entries(root):
    """Every path below it, parents first."""
    for directory, directories, files in os.walk(root):
        directories.sort()
        for entry in sorted(directories + files):
            yield os.path.relpath(os.path.join(directory, entry), root)


def same(path):
    """Whether the base has this very entry."""
    ours, theirs = os.path.join(whole, path), os.path.join(base, path)
    if not os.path.lexists(theirs):
        return False
    a, b = os.lstat(ours), os.lstat(theirs)
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid):
        return False
    if os.path.islink(ours):
        return os.readlink(ours) == os.readlink(theirs)
    if not os.path.isfile(ours):
        return True
    with open(ours, "rb") as one, open(theirs, "rb") as other:
        return a.st_size == b.st_size and one.read() == other.read()


class Hashed:
    """What is written to it is told apart into the layer's own digest and the compressed file."""

    def __init__(self, file):
        self.file, self.digest = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename=""), hashlib.sha256()

    def write(self, data):
        self.digest.update(data)
        return self.file.write(data)


def beside():
    """What the whole has beside the base, with the directories on the way: a layer tells their modes, too."""
    kept = set()
    for path in entries(whole):
        if not same(path):
            while path:
                kept.add(path)
                path = os.path.dirname(path)
    return kept


def layer(path, root, kept=None):
    """Writes the layer and returns its digest."""
    with open(path, "wb") as file:
        hashed = Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for entry in entries(root):
                if kept is None or entry in kept:
                    tar.add(os.path.join(root, entry), entry, recursive=False, filter=plain)
        hashed.file.close()
    return "sha256:" + hashed.digest.hexdigest()


def plain(entry):
    entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def write(path, value):
    with open(path, "w", encoding="ascii") as file:
        json.dump(value, file)


config = json.loads(config)
config.setdefault("Env", ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
parts = archive + ".parts"
os.makedirs(parts)
digests = [layer(f"{parts}/base.tar.gz", base), layer(f"{parts}/own.tar.gz", whole, beside())]
write(f"{parts}/config.json", {
    "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
    "os": "linux",
    "config": config,
    "rootfs": {"type": "layers", "diff_ids": digests},
})
write(f"{parts}/manifest.json", [{"Config": "config.json", "RepoTags": [name], "Layers": ["base.tar.gz", "own.tar.gz"]}])
with tarfile.open(archive, "w") as tar:
    for part in ["config.json", "base.tar.gz", "own.tar.gz", "manifest.json"]:
        tar.add(f"{parts}/{part}", part)
        os.remove(f"{parts}/{part}")
os.rmdir(parts)
