#!/usr/bin/env python3
"""descriptions.py SRC > descriptions-1.36.tsv.gz: texts of `kubectl explain`, from the schemas in k8s-openapi's sources (SRC: its src/v1_36).

A line `M message text` is a message, `F name text` a field of it; messages are named as in types-1.36.tsv.
"""
import gzip, json, pathlib, re, sys

PREFIXES = [
    ("io.k8s.apiextensions-apiserver.pkg.apis.", ""), ("io.k8s.kube-aggregator.pkg.apis.", ""), ("io.k8s.api.", ""),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.", "meta/v1."), ("io.k8s.apimachinery.pkg.api.resource.", "resource/"),
    ("io.k8s.apimachinery.pkg.util.intstr.", "intstr/"), ("io.k8s.apimachinery.pkg.runtime.", "runtime/"),
]


def short(name):
    for prefix, ours in PREFIXES:
        if name.startswith(prefix):
            return ours + name[len(prefix):]
    return name


def text(literal):
    return json.loads(re.sub(r"\\'", "'", literal)).replace("\t", " ").replace("\n", "\\n")


out = []
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.rs")):
    source = path.read_text()
    name = re.search(r'fn schema_name.*?\n\s+"([^"]+)"\.into\(\)', source)
    body = re.search(r"json_schema!\(\{\n(.*?)\n        \}\)", source, re.S)
    if not name or not body:
        continue
    about = re.search(r'^ {12}"description": ("(?:[^"\\]|\\.)*")', body[1], re.M)
    out.append(f"M\t{short(name[1])}\t{text(about[1]) if about else ''}")
    for field in re.finditer(r'^ {16}"([^"]+)": (.*?)(?=^ {16}"|^ {12}[}"])', body[1] + "\n            }", re.S | re.M):
        about = re.search(r'"description"(?:\.into\(\))?[:,] ("(?:[^"\\]|\\.)*")', field[2])
        if about:
            out.append(f"F\t{field[1]}\t{text(about[1])}")
sys.stdout.buffer.write(gzip.compress(("\n".join(out) + "\n").encode(), 9, mtime=0))
