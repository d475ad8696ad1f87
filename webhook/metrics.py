"""What Prometheus sees. Names begin with `noisegate_`, units are base units, and no label grows with what clients send.

Whatever a request touches is looked up once, here: counting one costs a microsecond or two. All labels that are known
from the start exist with zero from the start, so that rates and alerts see the first event too.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

RESULTS: Final = ("allowed", "patched", "denied", "warned", "errored", "refused")
"""Results of a call, as `review.Answer` names them; `refused` also counts what never reached the decision."""
REASONS: Final = (
    "busy",
    "client-name",
    "connections",
    "empty",
    "incomplete",
    "malformed",
    "media-type",
    "memory",
    "method",
    "path",
    "slow-body",
    "slow-client",
    "slow-head",
    "too-large",
)
"""Why a call or a connection was refused before the decision."""
HANDSHAKE_FAILURES: Final = ("certificate", "closed", "protocol", "time-out")
BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a call takes about 0.1 ms, and the API server's own time-out is at most 30 s, 10 by default."""
LOOKUPS: Final = ("found", "missing", "failed")
"""What came of asking for one object by name."""
UPDATES: Final = ("listed", "gone", "failed")
"""What came of following a kind: everything was listed, the version was too old, the API server did not give it."""
RELOADS: Final = ("reloaded", "refused", "recovered")


class Endpoint:
    """The counters of one endpoint.

    Attributes:
        name: `mutate`, `validate`, `warn/mutate` or `warn/validate`.
        observe: Notes how many seconds a call took.
        count: Counts a call, by result.
    """

    __slots__ = ("count", "name", "observe")

    def __init__(self, name: str, observe: Callable[[float], None], count: Mapping[str, Callable[[], None]]) -> None:
        self.name: Final = name
        self.observe: Final = observe
        self.count: Final = count


class Metrics:
    """All metrics of one process.

    Args:
        endpoints: Their names.
        codes: Problem codes that can occur, to begin with zero. Others are added when they occur: codes are the
            program's own, a client cannot make one up.
        watches: What is reloaded: the `what` of every watch.
        version: Of this program.
        folder: Where the worker processes of one server keep their numbers; empty: this is the only process.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        codes: Iterable[str] = (),
        watches: Iterable[str] = (),
        version: str = "",
        folder: str = "",
    ) -> None:
        self._folder = folder
        self.registry = CollectorRegistry()
        # The `_created` series double the page and are read by nobody who reads this format.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        if folder:
            # The library chooses between memory and files when it is imported; here it is chosen per server.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=self.registry)
        requests = self._counter("requests", "Calls, by what was answered.", "endpoint", "result")
        seconds = Histogram(
            "noisegate_request_duration_seconds",
            "Time from a call's head to its answer.",
            ["endpoint"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.endpoints: Final[dict[str, Endpoint]] = {}
        for name in endpoints:
            count = {result: requests.labels(name, result).inc for result in RESULTS}
            self.endpoints[name] = Endpoint(name, seconds.labels(name).observe, count)
        self.in_flight = self._gauge(
            "requests_in_flight", "Calls that wait for their body or for a look-up.", "livesum"
        )
        self.buffered = self._gauge("buffered_bytes", "Memory set aside for large bodies on their way.", "livesum")
        self.connections = self._gauge("connections", "Open connections.", "livesum")
        self.refused = self._labelled(
            self._counter("refused_requests", "Calls and connections refused before the decision.", "reason"), REASONS
        )
        self._problems = self._counter("problems", "Problems found in objects, by code (docs/problems.md).", "code")
        self._problem = self._labelled(self._problems, codes)
        self.failures = self._counter("failures", "Calls that failed by our own fault.")
        self.prefetch_failures = self._counter(
            "prefetch_failures", "Look-ups before a decision that failed or took too long."
        )
        self.handshakes = self._labelled(
            self._counter("tls_handshake_failures", "TLS handshakes that failed.", "reason"), HANDSHAKE_FAILURES
        )
        self._reloads = self._counter("reloads", "Changes of files, by what came of them.", "what", "result")
        self._reloaded = self._gauge("reload_last_success_timestamp_seconds", "Last good reading.", "min", "what")
        self._stale = self._gauge("reload_refused", "1 while the newest contents are refused.", "max", "what")
        for what in watches:
            for result in RELOADS:
                self._reloads.labels(what, result)
            self._stale.labels(what).set(0)
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds", "End of the serving certificate's validity.", "mostrecent"
        )
        self.draining = self._gauge("draining", "1 from the first signal on.", "livemax")
        self.restarts = self._counter("worker_restarts", "Worker processes started again after they died.")
        self.catalogue_objects: Gauge
        self.catalogue_updates: Counter
        self.lookups: Final[dict[tuple[str, str], Callable[[], None]]] = {}
        started = self._gauge("start_time_seconds", "When the process began to serve.", "livemin")
        started.set(time.time())
        build = self._gauge("build_info", "What runs; always 1.", "max", "version", "python")
        build.labels(version, platform.python_version()).set(1)

    def follow(self, kinds: Iterable[str]) -> None:
        """Begin to count what is followed in the cluster."""
        self.catalogue_objects = self._gauge("catalogue_objects", "Objects known of each kind.", "max", "kind")
        self.catalogue_updates = self._counter(
            "catalogue_updates", "Lists and watches of the API server, by what came of them.", "kind", "result"
        )
        lookups = self._counter(
            "lookups", "Objects asked for by name, as they were not known yet, by what came of it.", "kind", "result"
        )
        for kind in kinds:
            self.catalogue_objects.labels(kind).set(0)
            for result in UPDATES:
                self.catalogue_updates.labels(kind, result)
            for result in LOOKUPS:
                self.lookups[kind, result] = lookups.labels(kind, result).inc

    def problem(self, code: str) -> None:
        """Count a problem."""
        count = self._problem.get(code)
        if count is None:
            count = self._problem[code] = self._problems.labels(code).inc
        count()

    def reload(self, what: str, result: str, last_success: float, refused: bool) -> None:
        """Note what came of a reading of files, the first one included (then `result` is empty)."""
        if result:
            self._reloads.labels(what, result).inc()
        self._reloaded.labels(what).set(last_success)
        self._stale.labels(what).set(1 if refused else 0)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format: of this process, or of all that share the folder."""
        registry = self.registry
        if self._folder:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"noisegate_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Gauge:
        return Gauge(f"noisegate_{name}", text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    @staticmethod
    def _labelled(counter: Counter, labels: Iterable[str]) -> dict[str, Callable[[], None]]:
        return {label: counter.labels(label).inc for label in labels}
