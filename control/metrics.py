"""What Prometheus sees of the controller."""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

RESULTS: Final = ("done", "failed")
WRITES: Final = ("authority", "serving", "bundle", "conditions")


class Metrics:
    """All metrics of a controller."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        self.leader = self._gauge("leader", "1 while this replica leads.")
        self.looks = self._counter("looks", "Looks at the cluster while leading, by what came of them.", "result")
        self.writes = self._counter("writes", "What was written.", "what")
        self.expiry = self._gauge("certificate_expiry_timestamp_seconds", "End of validity.", "what")
        self.trusted = self._gauge("trusted_authorities", "Authorities in caBundle; 2 while one follows another.")
        self.refused = self._gauge("rules_refused", "1 while the newest rules cannot be used.")
        self.success = self._gauge("last_success_timestamp_seconds", "Last look after which nothing was left to do.")
        for result in RESULTS:
            self.looks.labels(result)
        for what in WRITES:
            self.writes.labels(what)
        for what in ("authority", "serving"):
            self.expiry.labels(what)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"noisegate_controller_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"noisegate_controller_{name}", text, labels, registry=self.registry)
