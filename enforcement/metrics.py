"""What Prometheus sees of a node enforcer. No label names a pod: their number is no bound."""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from noisegate.isolation.asked import Kind

KINDS: Final[tuple[Kind, ...]] = ("disk", "network", "rdt")
OUTCOMES: Final = ("ok", "refused", "late", "failed")
"""Of a call of the runtime: answered; refused with a reason; refused because its time was over; a fault of ours."""
EVENTS: Final = (
    "Synchronize",
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "UpdateContainer",
    "ValidateContainerAdjustment",
)
HOLD_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5)
"""The runtime waits 2 seconds by default, and we refuse at 1.5."""


class Metrics:
    """All metrics of an enforcer."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        self.connected = self._gauge("runtime_connected", "1 while the runtime's NRI knows us.")
        self.connections = self._counter("runtime_connections", "Connections that reached the runtime.")
        self.calls = Histogram(
            "noisegate_node_call_seconds",
            "For how long a call of the runtime was held, by event and outcome.",
            ("event", "outcome"),
            buckets=HOLD_SECONDS,
            registry=self.registry,
        )
        self.pods = self._gauge("pods", "Pods that are held to something, by kind.", "kind")
        self.refusals = self._counter(
            "refusals", "Starts that were refused because this node cannot hold them.", "kind"
        )
        self.skipped = self._counter("skipped", "Requests of a kind that cannot be meant and were left out.", "kind")
        self.repairs = self._counter("drift_repairs", "Limits that somebody else had changed and we put back.", "kind")
        self.failures = self._counter("failures", "Looks at a pod that found something we could not make true.", "kind")
        self.passed = self._gauge("preflight_passed", "1 where this node can hold a kind.", "kind")
        self.damaged = self._gauge("ledger_damaged", "Records that could not be read at the start and were set aside.")
        self.success = self._gauge("last_reconcile_timestamp_seconds", "End of the last look at all pods.")
        for kind in KINDS:
            for metric in (self.pods, self.refusals, self.skipped, self.repairs, self.failures, self.passed):
                metric.labels(kind)

        for event in EVENTS:
            for outcome in OUTCOMES:
                self.calls.labels(event, outcome)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"noisegate_node_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"noisegate_node_{name}", text, labels, registry=self.registry)
