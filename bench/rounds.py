"""The order of things: start the servers, check the answers, measure in shuffled rounds, look at memory and starts."""

import os
import platform
import ssl
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from bench import cases, servers, stages
from bench.cases import Case, Prepared
from bench.load import Measured, closed_loop, idle_connections, open_loop
from bench.servers import Cores, Started
from bench.stages import Cost

LIBRARIES: Final = ("aiohttp", "uvloop", "msgspec", "pydantic")
BUSY: Final = 8
"""Busy connections beside the idle ones."""
MOST_CONNECTIONS: Final = 64
"""Connections of the open loop: more than an API server keeps (25), fewer than it may dial."""


class Plan(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Every case is measured so many times; medians count.
        seconds: Length of one measurement.
        different: Pods in the cases whose pods are all different.
        idle: Idle connections beside the busy ones; 0: not measured.
        rates: Requests per second of the open loops.
        starts: Starts that are timed.
        stages: Whether the cost of each stage is measured.
    """

    rounds: int
    seconds: float
    different: int
    idle: int
    rates: tuple[int, ...]
    starts: int
    stages: bool


FULL: Final = Plan(rounds=5, seconds=0.9, different=3000, idle=1000, rates=(400, 1000), starts=5, stages=True)
QUICK: Final = Plan(rounds=1, seconds=0.4, different=1500, idle=0, rates=(), starts=1, stages=False)


class Cell(NamedTuple):
    """A case with a number of connections, measured against the no-op side by side, round by round."""

    case: Case
    connections: int
    ours: tuple[Measured, ...]
    noop: tuple[Measured, ...]


class Idle(NamedTuple):
    """One look at what idle connections change: without them, with them, and without them again."""

    before: Measured
    among: Measured
    after: Measured


class Results(NamedTuple):
    """Everything that was measured.

    Attributes:
        date: Day of the measurement, YYYY-MM-DD.
        machine: What it was measured on, without names.
        plan: How much was measured.
        cells: Closed loops.
        idle: Looks at what idle connections change.
        open_loops: Rate, noisegate and no-op.
        starts: Seconds from exec to ready.
        resident: Bytes of the largest worker after the closed loops.
        resident_noop: The same of the no-op.
        resident_idle: The same with the idle connections open; 0: not measured.
        others: Share of the machine's CPU time that went to anything but this benchmark.
        costs: Cost of each stage.
    """

    date: str
    machine: dict[str, str]
    plan: Plan
    cells: tuple[Cell, ...]
    idle: tuple[Idle, ...]
    open_loops: tuple[tuple[int, Measured, Measured], ...]
    starts: tuple[float, ...]
    resident: int
    resident_noop: int
    resident_idle: int
    others: float
    costs: tuple[Cost, ...]


def measure(plan: Plan, folder: Path, cores: Cores, say: Callable[[str], None]) -> Results:
    """Measure everything.

    Raises:
        ServerFailedError: A server did not start, or ended.
        WrongAnswerError: An answer was not the right one.
    """
    site = servers.site(folder, cores)
    say(f"timing {plan.starts} start(s)")
    starts = servers.start_times(site, plan.starts)
    with servers.noop(site) as noop, servers.noisegate(site) as ours:
        watch = _Others((noop, ours))
        say("making the requests and checking every answer")
        prepared = cases.prepare(ours, plan.different)
        cells = _rounds(plan, prepared, ours, noop, say)
        resident, resident_noop = ours.resident_bytes(), noop.resident_bytes()
        mutate = prepared[0]
        idle: list[Idle] = []
        resident_idle = 0
        for index in range(plan.rounds if plan.idle else 0):
            say(f"{plan.idle} idle connections, {index + 1} of {plan.rounds}")
            before = closed_loop(ours, mutate.ours, BUSY, seconds=plan.seconds)
            with idle_connections(ours, plan.idle, mutate.ours[0]):
                among = closed_loop(ours, mutate.ours, BUSY, seconds=plan.seconds)
                resident_idle = max(resident_idle, ours.resident_bytes())
            idle.append(Idle(before, among, closed_loop(ours, mutate.ours, BUSY, seconds=plan.seconds)))
        open_loops: list[tuple[int, Measured, Measured]] = []
        for rate in plan.rates:
            say(f"open loop, {rate} requests per second")
            open_ours = open_loop(ours, mutate.ours, MOST_CONNECTIONS, rate=rate, seconds=3)
            open_noop = open_loop(noop, mutate.noop, MOST_CONNECTIONS, rate=rate, seconds=3)
            open_loops.append((rate, open_ours, open_noop))
        others = watch.share()
    if plan.stages:
        say("the cost of each stage")
    return Results(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=machine(),
        plan=plan,
        cells=tuple(cells),
        idle=tuple(idle),
        open_loops=tuple(open_loops),
        starts=tuple(starts),
        resident=resident,
        resident_noop=resident_noop,
        resident_idle=resident_idle,
        others=others,
        costs=tuple(stages.costs()) if plan.stages else (),
    )


def _rounds(
    plan: Plan,
    prepared: list[Prepared],
    ours: Started,
    noop: Started,
    say: Callable[[str], None],
) -> list[Cell]:
    wanted = [(each, connections) for each in prepared for connections in each.case.connections]
    random = Random()
    measured: list[tuple[list[Measured], list[Measured]]] = [([], []) for _ in wanted]
    for index in range(plan.rounds):
        say(f"round {index + 1} of {plan.rounds}")
        order = list(range(len(wanted)))
        random.shuffle(order)
        for place in order:
            each, connections = wanted[place]
            # The two stand side by side, so that both see the machine in the same mood.
            pair = [(ours, each.ours, measured[place][0]), (noop, each.noop, measured[place][1])]
            random.shuffle(pair)
            for server, exchanges, into in pair:
                into.append(closed_loop(server, exchanges, connections, seconds=plan.seconds))
    return [
        Cell(each.case, connections, tuple(figures[0]), tuple(figures[1]))
        for (each, connections), figures in zip(wanted, measured, strict=True)
    ]


def machine() -> dict[str, str]:
    """Describe the machine and what runs on it."""
    described = {
        "processor": _processor(),
        "cores": f"{os.cpu_count()} (one for the server, one for the load)",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.removeprefix("OpenSSL ").partition(" ")[0],
    }
    return described | {library: version(library) for library in LIBRARIES}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


class _Others:
    """Watches what else the machine does, since that is what spoils a measurement."""

    def __init__(self, ours: tuple[Started, ...]) -> None:
        self._servers = ours
        self._begun = time.monotonic()
        self._busy = _busy_seconds() - self._own_seconds()

    def share(self) -> float:
        """Return the share, 0 to 1, of all cores' time that other processes took."""
        elapsed = time.monotonic() - self._begun
        busy = _busy_seconds() - self._own_seconds() - self._busy
        return max(0.0, busy / elapsed / (os.cpu_count() or 1))

    def _own_seconds(self) -> float:
        return time.process_time() + sum(server.cpu_seconds() for server in self._servers)


def _busy_seconds() -> float:
    # /proc/stat: user nice system idle iowait irq softirq steal, in clock ticks since the start of the machine.
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
