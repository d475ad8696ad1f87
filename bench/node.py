"""What the enforcer costs a node: for how long it holds the runtime, how soon it has taken a node over, what it takes at rest.

`python -m bench.node`, or `make bench-node`; as root. Its own process is asked over the runtime's protocol by a runtime of
the bench, about pods whose cgroups are plain files and whose interfaces are real; and a real containerd creates containers
with and without it.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.nodesite import (
    DISK,
    NETWORK,
    REQUIRED,
    ROOT,
    Daemon,
    Made,
    Site,
    TakenOver,
    Times,
    enforcer,
    interfaces,
    lives,
    taken_over,
)
from bench.report import table

# What the tests have is found since bench.nodesite is.
import namespaces  # isort: skip
from containerd import TOLERATE, Containerd, Node, Nri  # isort: skip
from enforcing import Enforcer  # isort: skip

from noisegate.enforcement import survey
from noisegate.enforcement.holder import Holder
from noisegate.enforcement.intent import intent as intents
from noisegate.enforcement.kernel.blocks import Blocks
from noisegate.enforcement.kernel.links import Links
from noisegate.enforcement.kernel.mountinfo import Mounts
from noisegate.enforcement.kernel.shaper import Shaper
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.metrics import KINDS
from noisegate.enforcement.nri.messages import read_container, read_sandbox
from noisegate.enforcement.places import Places

BEGIN: Final = "<!-- node: written by `make bench-node` -->"
END: Final = "<!-- end of node -->"

HELD_P50: Final = 5.0
HELD_P99: Final = 50.0
"""Milliseconds that a call of the runtime may be held."""
SYNCHRONIZED: Final = 1.0
"""Seconds until the runtime has our answer about a thousand containers."""
AT_REST: Final = 0.01
"""Share of one core with 250 pods."""
RESIDENT: Final = 110
"""MB with 250 pods."""
ALL_SECONDS: Final = 300.0
"""Between two looks of the enforcer at every pod."""
YOUNG_SECONDS: Final = 65.0
"""Until the enforcer no longer reads the counters of new pods in each round."""


class Plan(NamedTuple):
    """How much is measured.

    Attributes:
        pods: Sandboxes, of one container each, whose disks are limited.
        networks: Those whose interfaces are limited too, and that are there at rest.
        rest: Seconds that the enforcer at rest is watched.
        rounds: With and without the enforcer beside a real containerd.
        creations: Pods in each of them.
        applied: Pods of the in-process figures.
    """

    pods: int
    networks: int
    rest: float
    rounds: int
    creations: int
    applied: int


FULL: Final = Plan(pods=1000, networks=250, rest=30.0, rounds=5, creations=12, applied=1000)
QUICK: Final = Plan(pods=200, networks=30, rest=10.0, rounds=2, creations=6, applied=200)


class Rest(NamedTuple):
    """The enforcer at rest, with its rounds.

    Attributes:
        share: Of one core, in the usual rounds.
        every: Seconds of CPU that a look at every pod takes.
        resident: MB.
    """

    share: float
    every: float
    resident: float


async def at_rest(daemon: Daemon, seconds: float) -> float:
    """Return the seconds of CPU that the enforcer takes in some seconds."""
    before = daemon.cpu_seconds()
    await asyncio.sleep(seconds)
    daemon.check()
    return daemon.cpu_seconds() - before


# In one process, and beside a real runtime.


def applied(site: Site, pods: Sequence[Made]) -> tuple[float, float]:
    """Return how many pods a thread plans and applies in a second, and how many it looks at and finds as they should be."""
    places = Places(Blocks(Path("/sys")), Mounts(), Path("/"), str(ROOT))
    ledger = Ledger.open(site.folder / "applied", survey.boot())
    holder = Holder(site.tree, Links(), Shaper(), places, ledger, KINDS)
    known = []
    for pod, container in pods:
        sandbox = read_sandbox(pod)
        intent = intents.choose(intents.Sandbox(sandbox.uid, sandbox.namespace, sandbox.name, sandbox.annotations))
        known.append((intent, sandbox, read_container(container)))
    took = []
    for _ in range(2):
        began = time.perf_counter()
        for intent, sandbox, one in known:
            if refused := holder.take(intent, sandbox, (one,)).refusals:
                raise RuntimeError(refused)
        took.append(len(pods) / (time.perf_counter() - began))
    for pod, _ in pods:
        holder.release(pod.uid)
    return took[0], took[1]


class Creations(NamedTuple):
    """Milliseconds of create and start beside a real containerd, round by round."""

    without: list[float]
    plain: list[float]
    asking: list[float]


def creations(folder: Path, plan: Plan, say: Callable[[str], None]) -> Creations:
    """Have a real containerd create and start containers, in turns without and with the enforcer."""
    found = Creations([], [], [])
    with Node(folder) as node, Containerd(node, Nri(validator=True, tolerate=TOLERATE)) as containerd:
        enforcing = Enforcer(containerd)

        def median_of(annotations: Mapping[str, str]) -> float:
            times = []
            for _ in range(plan.creations):
                pod = containerd.cri.run_pod(annotations=annotations)
                began = time.perf_counter()
                containerd.cri.run(pod)
                times.append(1000 * (time.perf_counter() - began))
                containerd.cri.stop_pod(pod)
                containerd.cri.remove_pod(pod)
            return statistics.median(times)

        median_of({})
        for turn in range(plan.rounds):
            say(f"containerd: round {turn + 1} of {plan.rounds}")
            found.without.append(median_of({}))
            with enforcing:
                found.plain.append(median_of({}))
                found.asking.append(median_of(NETWORK | REQUIRED))
    return found


class Measured(NamedTuple):
    """Everything that was measured.

    Attributes:
        events: By what pods ask for and event, the milliseconds of each call.
        lives: By what pods ask for, the enforcer's milliseconds of CPU for one pod from its first call to its last.
        first: Of a node that was never taken over before.
        again: Of one whose ledger and limits are there.
        containers: In both.
        rest: With limits of disk and network.
        pods: At rest.
        applied: Pods planned and applied in a second, in one thread.
        looked: The same, where everything stands already.
        created: Beside a real containerd.
    """

    events: dict[tuple[str, str], Times]
    lives: dict[str, float]
    first: TakenOver
    again: TakenOver
    containers: int
    rest: Rest
    pods: int
    applied: float
    looked: float
    created: Creations


async def events_of(
    site: Site, plan: Plan, netns: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[tuple[str, str], Times], dict[str, float]]:
    """Have pods of each sort come and go, and return the milliseconds of each call, and those of CPU for a pod."""
    events: dict[tuple[str, str], Times] = {}
    spent: dict[str, float] = {}
    sorts = {
        "nothing": [site.pod(number, {}) for number in range(plan.pods)],
        "disk": [site.pod(number, DISK) for number in range(plan.pods)],
        "disk and network": [site.pod(number, DISK | NETWORK, path) for number, path in enumerate(netns)],
    }
    async with enforcer(site) as (daemon, peer):
        await peer.synchronize()
        await lives(peer, sorts["disk"][:20])
        for asked, pods in sorts.items():
            say(f"{len(pods)} pods that ask for {asked}")
            before = daemon.cpu_seconds()
            for event, times in (await lives(peer, pods)).items():
                events[asked, event] = times
            spent[asked] = 1000 * (daemon.cpu_seconds() - before) / len(pods)
    return events, spent


async def taken_over_twice(site: Site, plan: Plan, say: Callable[[str], None]) -> tuple[TakenOver, TakenOver]:
    """Return how long a node takes that was never taken over, and one whose enforcer starts anew."""
    say(f"taking over {plan.pods} containers")
    pods = [site.pod(number, DISK) for number in range(plan.pods)]
    found = []
    for _ in range(2):
        async with enforcer(site) as (_, peer):
            found.append(await taken_over(site, peer, pods))
            await settled(site, pods)
    return found[0], found[1]


async def settled(site: Site, pods: Sequence[Made]) -> None:
    """Wait until the ledger has every pod."""
    while len(list((site.state / "pods").glob("*.json"))) < len(pods):  # noqa: ASYNC110  (a file system tells nothing)
        await asyncio.sleep(0.05)


async def resting(site: Site, plan: Plan, netns: Sequence[str], say: Callable[[str], None]) -> Rest:
    """Watch the enforcer while nothing happens."""
    pods = [site.pod(number, DISK | NETWORK, path) for number, path in enumerate(netns)]
    every = YOUNG_SECONDS + plan.rest + 5
    async with enforcer(site, "--all-seconds", str(every)) as (daemon, peer):
        began = time.monotonic()
        await taken_over(site, peer, pods)
        await settled(site, pods)
        say(f"{len(pods)} pods at rest: waiting {YOUNG_SECONDS:g} s, then watching {plan.rest:g} s")
        await asyncio.sleep(began + YOUNG_SECONDS - time.monotonic())
        usual = await at_rest(daemon, plan.rest) / plan.rest
        say("and a look at every pod")
        whole = await at_rest(daemon, 40)
        return Rest(usual, max(0.0, whole - 40 * usual), daemon.resident())


def measure(plan: Plan, folder: Path, say: Callable[[str], None]) -> Measured:
    """Measure everything."""

    def site(name: str) -> Site:
        (folder / name).mkdir()
        return Site(folder / name)

    # A namespace has an open file each.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * plan.networks + 1024)), hard))
    with namespaces.node(), interfaces(plan.networks) as netns:
        events, spent = asyncio.run(events_of(site("events"), plan, netns, say))
        first, again = asyncio.run(taken_over_twice(site("start"), plan, say))
        rest = asyncio.run(resting(site("rest"), plan, netns, say))
        say("planning and applying in one thread")
        one = site("applied")
        speeds = applied(one, [one.pod(number, DISK) for number in range(plan.applied)])
    with tempfile.TemporaryDirectory(prefix="noisegate-bench-") as disk:
        created = creations(Path(disk), plan, say)
    return Measured(events, spent, first, again, plan.pods, rest, plan.networks, *speeds, created)


def text(measured: Measured) -> str:
    """Return the report as Markdown."""
    told = (
        f"Runtime, enforcer and bench on the same {os.cpu_count()} cores; load of the machine at the end "
        f"{os.getloadavg()[0]:.1f}. Every figure has the noise of what else runs there: medians tell more than maxima."
    )
    parts = [
        told,
        table(
            ("what", "target", "measured", ""),
            [(*row[:3], "met" if row[3] else "**missed**") for row in verdicts(measured)],
        ),
        table(
            ("asks for", "call", "calls", "p50 ms", "p99 ms", "longest ms"),
            [
                (
                    asked,
                    event,
                    str(len(times)),
                    f"{quantile(times, 0.5):.2f}",
                    f"{quantile(times, 0.99):.2f}",
                    f"{max(times):.2f}",
                )
                for (asked, event), times in measured.events.items()
            ],
        ),
        table(("what", "measured"), rest_of(measured)),
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(measured: Measured) -> list[tuple[str, str, str, bool]]:
    """Hold the figures against the targets."""
    rows: list[tuple[str, str, str, bool]] = []
    for asked in dict.fromkeys(asked for asked, _ in measured.events):
        times = [one for (of, _), all_ in measured.events.items() if of == asked for one in all_]
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        what = f"pods that ask for {asked}: a call holds the runtime"
        told = f"{p50:.2f} / {p99:.2f} ms"
        target = f"p50 <= {HELD_P50:g}, p99 <= {HELD_P99:g} ms"
        rows.append((what, target, told, p50 <= HELD_P50 and p99 <= HELD_P99))
    answered = max(measured.first.answered, measured.again.answered)
    what = f"Synchronize of {measured.containers} containers: answered"
    rows.append((what, f"<= {SYNCHRONIZED:g} s", f"{answered:.2f} s", answered <= SYNCHRONIZED))
    share = measured.rest.share + measured.rest.every / ALL_SECONDS
    what = f"{measured.pods} pods at rest, disk and network: CPU"
    rows.append((what, f"<= {AT_REST:.0%} of a core", f"{share:.2%}", share <= AT_REST))
    resident = measured.rest.resident
    what = f"{measured.pods} pods at rest: resident memory"
    rows.append((what, f"<= {RESIDENT} MB", f"{resident:.0f} MB", resident <= RESIDENT))
    return rows


def rest_of(measured: Measured) -> list[tuple[str, str]]:
    """Return what has no target."""
    first, again, rest, created = measured.first, measured.again, measured.rest, measured.created
    lives_ = ", ".join(f"{asked} {spent:.1f}" for asked, spent in measured.lives.items())
    return [
        ("CPU of the enforcer for one pod from its first call to its last, by what it asks for", f"{lives_} ms"),
        (
            f"taking over {measured.containers} containers for the first time: answered, all held",
            f"{first.answered:.2f}, {first.all_held:.2f} s",
        ),
        ("the same after a restart, where all stands: answered", f"{again.answered:.2f} s"),
        ("at rest: CPU of the usual rounds", f"{rest.share:.2%} of a core"),
        (f"at rest: a look at every pod, each {ALL_SECONDS:g} s", f"{rest.every:.2f} s of CPU"),
        (
            "planned and applied to cgroups of plain files, with the ledger, one thread",
            f"{measured.applied:.0f} pods/s",
        ),
        ("the same where everything stands", f"{measured.looked:.0f} pods/s"),
        ("real containerd, create + start, without the enforcer", _rounds(created.without)),
        ("with it, pods that ask for nothing", _rounds(created.plain)),
        ("with it, pods that ask for network", _rounds(created.asking)),
    ]


def _rounds(medians: Sequence[float]) -> str:
    return f"{statistics.median(medians):.1f} ms [{min(medians):.1f}-{max(medians):.1f}]"


def quantile(times: Sequence[float], share: float) -> float:
    """Return the value below which a share of the times lies."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.node", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a glance, with fewer pods")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this page")
    given = parser.parse_args()
    if os.geteuid() != 0 or namespaces.missing():
        print(f"bench: {namespaces.missing() or 'root is needed, for namespaces'}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="noisegate-bench-", dir="/dev/shm") as folder:
        measured = measure(QUICK if given.quick else FULL, Path(folder), _say)
    told = text(measured)
    print(told)
    if given.write is not None:
        page = given.write.read_text()
        head, _, rest = page.partition(BEGIN)
        given.write.write_text(f"{head}{BEGIN}\n\n{told}\n{END}{rest.partition(END)[2]}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
