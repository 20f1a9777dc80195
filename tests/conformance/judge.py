"""Runs Kubernetes' conformance suite against a Coracle of its own and holds the ratchet: specs that passed once must pass.

The suite (e2e.test, as upstream builds it) is given by path and never built here. Specs are dealt to several processes of it, which share one
cluster; those marked [Serial] run alone afterwards. Exit code 0: all that had to pass passed.

passing.txt holds the specs that run no pod. Those of passing-node.txt start pods of the suite's own images: they are held when --images names a
directory with archives (docker save or OCI, *.tar) of all that `e2e.test --list-images` asks for; nothing is pulled. Two of them ask for more:
ImageVolume with its policy Always for a registry (or a mirror of it in registries.yaml), the read only busybox for an image whose sh is ash.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
RATCHET = HERE / "passing.txt"
NODE_RATCHET = HERE / "passing-node.txt"


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="the suite's program, e2e.test")
    parser.add_argument("--specs", type=Path, help="a file of spec names, one a line (default: the ratchet)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="imports its *.tar first (not with --kubeconfig), and holds passing-node.txt too")
    parser.add_argument("--only", default="", metavar="REGEX", help="of these, the specs whose name it matches")
    parser.add_argument("--jobs", type=int, default=4, help="processes of the suite at once (default 4)")
    parser.add_argument("--limit", default="20m", help="how long one process of the suite may take (default 20m)")
    parser.add_argument("--binary", type=Path, default=HERE.parents[1] / "dist" / "coracle", help="the program (default dist/coracle)")
    parser.add_argument("--kubeconfig", type=Path, help="a cluster that runs already, instead of one of our own")
    parser.add_argument("--output", type=Path, help="keeps the suite's logs in this directory")
    parser.add_argument("--update", action="store_true", help="adds what passed to the ratchet; with --images to passing-node.txt")
    return parser.parse_args()


def names(path):
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class Cluster:
    """A Coracle in a data directory of its own, on free ports; gone with everything it started when the context ends."""

    def __init__(self, binary, home, images):
        self.binary, self.data, self.images = binary, home / "data", images

    def __enter__(self):
        command = [self.binary, "server", "-d", self.data, "--https-listen-port", "0", "--kubelet-port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "ready; KUBECONFIG" in line:
                self.drain = ThreadPoolExecutor(1).submit(lambda: [None for _ in self.process.stderr])
                for archive in sorted(self.images.glob("*.tar")) if self.images else []:
                    subprocess.run([self.binary, "images", "-d", self.data, "import", archive], stdout=subprocess.DEVNULL, check=True)
                return self.data / "admin.kubeconfig"
        sys.exit(f"run.sh: the server ended with exit code {self.process.wait()} before it was ready")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        subprocess.run([self.binary, "killall", "-d", self.data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def focus(specs):
    # The suite matches its own name and the spec's together.
    return "(" + "|".join(re.escape(spec) for spec in specs) + ")$"


def results(report):
    """(name, state) of each spec that ran."""
    if not report.exists():
        return
    for suite in json.loads(report.read_text()):
        for spec in suite["SpecReports"] or []:
            if spec["LeafNodeType"] == "It" and spec["State"] != "skipped":
                yield " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]), spec["State"]


def ask(args, kubeconfig, output, number, specs):
    """Runs one process of the suite; what became of its specs."""
    report = output / f"{number}.json"
    command = [args.suite, f"--kubeconfig={kubeconfig}", "--provider=skeleton", "--num-nodes=2", "--allowed-not-ready-nodes=10"]
    command += ["--disable-log-dump", f"--ginkgo.timeout={args.limit}", f"--ginkgo.json-report={report}", "--ginkgo.no-color"]
    command += [f"--ginkgo.focus={focus(specs)}"]
    with open(output / f"{number}.log", "wb") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, check=False)
    return dict(results(report))


def judge(args, kubeconfig, output, specs):
    serial = [spec for spec in specs if "[Serial]" in spec]
    others = [spec for spec in specs if "[Serial]" not in spec]
    jobs = max(1, min(args.jobs, len(others)))
    became = {}
    with ThreadPoolExecutor(jobs) as pool:
        shares = [others[n::jobs] for n in range(jobs)]
        for share in pool.map(lambda deal: ask(args, kubeconfig, output, *deal), enumerate(filter(None, shares))):
            became.update(share)
    if serial:
        became.update(ask(args, kubeconfig, output, "serial", serial))
    return became


def main():
    args = arguments()
    here, away = set(names(RATCHET)), set(names(NODE_RATCHET))
    held = here | away if args.images else here
    wanted = [spec for spec in (names(args.specs) if args.specs else sorted(held)) if re.search(args.only, spec)]
    if not wanted:
        sys.exit("run.sh: no spec is asked for")
    if not os.access(args.suite, os.X_OK):
        sys.exit(f"run.sh: {args.suite}: no program; give the suite's e2e.test by path")
    home = Path(tempfile.mkdtemp(prefix="coracle-conformance-", dir="/var/tmp"))
    output = args.output or home / "output"
    output.mkdir(parents=True, exist_ok=True)
    try:
        if args.kubeconfig:
            became = judge(args, args.kubeconfig, output, wanted)
        else:
            with Cluster(args.binary, home, args.images) as kubeconfig:
                became = judge(args, kubeconfig, output, wanted)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    passed = {name for name, state in became.items() if state == "passed"}
    for spec in wanted:
        if spec not in passed:
            print(f"{'LOST' if spec in held else 'FAIL'} {spec}: {became.get(spec, 'did not run')}")
    new = passed - here - away
    for spec in sorted(new):
        print(f"NEW  {spec}")
    if args.update:
        ratchet, known = (NODE_RATCHET, away) if args.images else (RATCHET, here)
        ratchet.write_text("".join(f"{spec}\n" for spec in sorted(known | new)))
    print(f"Ran {len(became)} of {len(wanted)}: {len(passed)} passed, {len(became) - len(passed)} failed, {len(held & set(wanted) - passed)} lost")
    return 1 if held & set(wanted) - passed else 0


if __name__ == "__main__":
    sys.exit(main())
