"""What creating a pod costs in a real API server: without webhooks, with a no-op pair, and with noisegate.

`python -m bench.creation`, or `make bench-cluster`. Everything is on this machine's loopback: client, API server, etcd and
webhook share its cores, so what counts are differences within a round, not figures by themselves.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
# The control plane is that of the tests: where it comes from, and how it starts, is written once.
sys.path[:0] = [str(ROOT / "tests" / "support")]

import installed  # noqa: E402
import replicas  # noqa: E402
from controlplane import Api, ControlPlane, start  # noqa: E402
from controlplane.plane import encoded  # noqa: E402

from noisegate.webhook import rules  # noqa: E402
from noisegate.webhook.world import shipped_rules  # noqa: E402

NAMESPACE: Final = "bench"
CLIENTS: Final = 8
ACCOUNT: Final = ("noisegate-system", "noisegate-webhook")
RIGHTS: Final = ROOT / "deploy" / "base" / "webhook-rbac.yaml"
CATALOGUE: Final = ("networks", "claims", "storageClasses")
"""As deploy/base has it."""
IN_FORCE: Final = 2.0
"""Seconds until what is registered, or no longer, is in force; it takes one."""
P50: Final = 0.5
P99: Final = 2.0
"""Milliseconds that noisegate may add to what the no-op pair adds."""
BEGIN: Final = "<!-- creation: written by `make bench-cluster` -->"
END: Final = "<!-- end of creation -->"

Json = dict[str, Any]
Times = list[float]


class Case(NamedTuple):
    """A way to create pods.

    Attributes:
        name: In the table.
        webhooks: Which configurations are registered: ``, `noop` or `noisegate`.
        pod: Makes the pod of a number.
        told: Whether its container is told the number of its cores: by noisegate, or by the no-op that patches.
    """

    name: str
    webhooks: str
    pod: Callable[[int], Json]
    told: bool = False


def plain(number: int) -> Json:
    """Return a pod that asks for nothing."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"p{number}", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10"}]},
    }


def asking(number: int, variant: int = 0) -> Json:
    """Return a pod that asks for cores, disk and network; `variant` makes it like no other."""
    value = plain(number)
    disk = {"data": {"limits": {"rbps": f"{50 + variant}Mi/4k", "wbps": "20Mi/4k"}}}
    network = {"limits": {"ingress": f"{100 + variant}M", "egress": "50M"}}
    value["metadata"]["annotations"] = {
        "blockio.kubernetes.io/resources": json.dumps(disk),
        "networkio.kubernetes.io/resources": json.dumps(network),
    }
    amounts = {"cmk.intel.com/exclusive-cores": "2"}
    container = value["spec"]["containers"][0]
    container["resources"] = {"limits": amounts, "requests": amounts}
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    value["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    return value


CASES: Final = (
    Case("no webhook", "", asking),
    Case("no-op pair", "noop", asking),
    Case("no-op pair that patches", "patch", asking, told=True),
    Case("noisegate, replicas that ask", "noisegate", asking, told=True),
    Case("noisegate, all different", "noisegate", lambda number: asking(number, number % 9000), told=True),
    Case("noisegate, pods that ask for nothing", "noisegate", plain),
    Case("no webhook, pods that ask for nothing", "", plain),
)


class Lab:
    """An API server, a no-op pair and noisegate, of which one or none is registered."""

    def __init__(self, plane: ControlPlane, ports: Mapping[str, int], bundle: bytes) -> None:
        self.plane: Final = plane
        self.ports: Final = ports
        self.bundle: Final = bundle
        self.number = 0

    @contextlib.contextmanager
    def registered(self, webhooks: str) -> Iterator[None]:
        """Have configurations in force."""
        read = rules.load(Path(shipped_rules()).read_bytes(), "mutations.yaml")
        if not webhooks:
            time.sleep(IN_FORCE)
            yield
            return

        def everything(configuration: Json) -> None:
            if webhooks != "noisegate":
                configuration["webhooks"] = [configuration["webhooks"][0]]
                configuration["webhooks"][0]["matchConditions"] = []
                configuration["webhooks"][0]["clientConfig"]["caBundle"] = encoded(self.bundle)
                if webhooks == "patch" and configuration["kind"].startswith("Mutating"):
                    configuration["webhooks"][0]["clientConfig"]["service"]["path"] = "/patch"

        with installed.registered(self.plane, self.ports[webhooks], self.bundle, read, change=everything):
            time.sleep(IN_FORCE)
            yield

    def measure(self, case: Case, count: int, clients: int) -> Times:
        """Create pods; return the milliseconds that each took, and delete them."""
        times: Times = []
        per_client = count // clients

        def create(first: int) -> None:
            api: Api = self.plane.as_("admin")
            mine: Times = []
            for number in range(first, first + per_client):
                body = case.pod(number)
                began = time.perf_counter()
                reply = api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
                mine.append(1000 * (time.perf_counter() - began))
                # Whoever is to take part took part, and nobody else.
                if reply.status != 201 or case.told != ("env" in reply.body["spec"]["containers"][0]):
                    raise RuntimeError(f"{case.name}: {reply}")
            times.extend(mine)
            api.close()

        threads = []
        for _ in range(clients):
            threads.append(threading.Thread(target=create, args=(self.number,)))
            self.number += per_client
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(times) != per_client * clients:
            raise RuntimeError(f"{case.name}: some creations failed")
        self.plane.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods")
        return times


class Cell(NamedTuple):
    """What came of one case with so many clients: medians over the rounds, milliseconds."""

    case: str
    clients: int
    p50: float
    p99: float
    more_p50: float
    more_p99: float


def quantile(times: Sequence[float], share: float) -> float:
    """Return the value below which a share of the times lies."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cells(rounds: Sequence[Mapping[tuple[str, int], Times]]) -> list[Cell]:
    """Return the table; `more`: than the no-op pair in the same round, for plain pods than without webhooks."""
    result = []
    for clients in (1, CLIENTS):
        for case in CASES:
            base = CASES[1].name if case.pod is not plain else CASES[6].name
            rows = []
            for one in rounds:
                times, against = one[case.name, clients], one[base, clients]
                p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
                rows.append((p50, p99, p50 - quantile(against, 0.5), p99 - quantile(against, 0.99)))
            result.append(Cell(case.name, clients, *(statistics.median(column) for column in zip(*rows, strict=True))))
    return result


def report(table: Sequence[Cell], memory: Sequence[tuple[str, str]], load: float) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"Client, API server, etcd and webhook on the same {os.cpu_count()} cores; load of the machine at the end {load:.1f}.",
        "",
        "| creating a pod | clients | p50 ms | p99 ms | more at p50 | more at p99 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {cell.case} | {cell.clients} | {cell.p50:.2f} | {cell.p99:.2f} | {cell.more_p50:+.2f} | {cell.more_p99:+.2f} |"
        for cell in table
    ]
    asks = next(cell for cell in table if cell.case == CASES[3].name and cell.clients == 1)
    met = [asks.more_p50 <= P50, asks.more_p99 <= P99]
    lines += [
        "",
        "*More*: than the no-op pair in the same round; for pods that ask for nothing, than without webhooks.",
        f"Target for replicas that ask, one client: at most {P50} ms at p50 ({_verdict(met[0])}), {P99:g} ms at p99 ({_verdict(met[1])}).",
        "",
        "| in a cluster | measured |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in memory),
    ]
    return "\n".join(lines) + "\n"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def run(count: int, turns: int) -> tuple[list[Cell], list[tuple[str, str]]]:
    """Measure everything."""
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="noisegate-bench-")))
        (folder / "plane").mkdir()
        plane = ends.enter_context(start(folder / "plane"))
        plane.api.made({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        certificates = installed.Certificates(folder / "pair")
        command = [
            sys.executable,
            "-m",
            "bench.echo",
            str(folder / "pair" / "cert.pem"),
            str(folder / "pair" / "key.pem"),
        ]
        noop = ends.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT))
        ends.callback(noop.terminate)
        if noop.stdout is None:
            raise RuntimeError("the no-op server has no output")
        installed.prepare(plane)
        namespace, name = ACCOUNT
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        plane.api.made(account)
        plane.api.apply(RIGHTS.read_text())
        live = {
            "catalogue": list(CATALOGUE),
            "apiServer": plane.url,
            "account": str(plane.account_folder(namespace, name)),
        }
        settings = {"server": replicas.secured(certificates.folder), "cluster": live}
        ours = ends.enter_context(replicas.webhook(folder, settings))
        ours.ready()
        port = int(noop.stdout.readline())
        lab = Lab(plane, {"noop": port, "patch": port, "noisegate": ours.where["port"]}, certificates.bundle)
        for case in CASES:
            with lab.registered(case.webhooks):
                lab.measure(case, count // 4, 1)
        rounds = []
        for turn in range(turns):
            print(f"round {turn + 1} of {turns} ...", file=sys.stderr, flush=True)
            times: dict[tuple[str, int], Times] = {}
            for case in [*CASES[turn % len(CASES) :], *CASES[: turn % len(CASES)]]:
                with lab.registered(case.webhooks):
                    for clients in (1, CLIENTS):
                        times[case.name, clients] = lab.measure(case, count, clients)
            rounds.append(times)
        memory = [
            ("resident memory of the server after the load, with the live catalogue", f"{ours.resident() / 1e6:.0f} MB")
        ]
        return cells(rounds), memory


def main() -> int:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.creation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this page")
    args = parser.parse_args()
    table, memory = run(160 if args.quick else 400, 2 if args.quick else 5)
    text = report(table, memory, os.getloadavg()[0])
    print(text)
    if args.write is not None:
        page = args.write.read_text()
        head, _, rest = page.partition(BEGIN)
        args.write.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
