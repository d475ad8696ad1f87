"""What Prometheus sees."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from noisegate.webhook.metrics import HANDSHAKE_FAILURES, REASONS, RESULTS, Metrics

ENDPOINTS = ("mutate", "validate")


@pytest.fixture(name="metrics")
def _metrics() -> Metrics:
    return Metrics(ENDPOINTS, ["NG101"], ["certificate"], "1.2.3")


def _samples(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_everything_known_begins_with_zero(metrics: Metrics) -> None:
    """All labels that are known from the start are there with zero."""
    samples = _samples(metrics.text())
    expected = [
        *(("noisegate_requests_total", f"endpoint={e}", f"result={r}") for e in ENDPOINTS for r in RESULTS),
        *(("noisegate_refused_requests_total", f"reason={reason}") for reason in REASONS),
        *(("noisegate_tls_handshake_failures_total", f"reason={reason}") for reason in HANDSHAKE_FAILURES),
        *(("noisegate_request_duration_seconds_count", f"endpoint={e}") for e in ENDPOINTS),
        *(("noisegate_reloads_total", f"result={r}", "what=certificate") for r in ("reloaded", "refused", "recovered")),
        ("noisegate_problems_total", "code=NG101"),
        ("noisegate_requests_in_flight",),
        ("noisegate_buffered_bytes",),
        ("noisegate_connections",),
        ("noisegate_failures_total",),
        ("noisegate_prefetch_failures_total",),
        ("noisegate_worker_restarts_total",),
        ("noisegate_draining",),
        ("noisegate_reload_refused", "what=certificate"),
    ]
    assert {key: samples.get(key) for key in expected} == dict.fromkeys(expected, 0.0)
    assert not any(name.endswith("_created") for name, *_ in samples)


def test_a_call_is_counted(metrics: Metrics) -> None:
    """An endpoint's counters note result and duration."""
    endpoint = metrics.endpoints["mutate"]
    endpoint.observe(0.0003)
    endpoint.count["denied"]()
    samples = _samples(metrics.text())
    assert samples["noisegate_requests_total", "endpoint=mutate", "result=denied"] == 1
    assert samples["noisegate_request_duration_seconds_bucket", "endpoint=mutate", "le=0.00025"] == 0
    assert samples["noisegate_request_duration_seconds_bucket", "endpoint=mutate", "le=0.0005"] == 1
    assert samples["noisegate_request_duration_seconds_sum", "endpoint=mutate"] == 0.0003


def test_problems_are_counted_by_code(metrics: Metrics) -> None:
    """A code that was not announced is counted as well."""
    for code in ("NG101", "NG102", "NG102"):
        metrics.problem(code)
    samples = _samples(metrics.text())
    assert samples["noisegate_problems_total", "code=NG101"] == 1
    assert samples["noisegate_problems_total", "code=NG102"] == 2


def test_reloads(metrics: Metrics) -> None:
    """The first reading sets the time, later ones are counted by what came of them."""
    metrics.reload("certificate", "", 100.0, refused=False)
    metrics.reload("certificate", "refused", 100.0, refused=True)
    samples = _samples(metrics.text())
    assert samples["noisegate_reload_last_success_timestamp_seconds", "what=certificate"] == 100
    assert samples["noisegate_reloads_total", "result=refused", "what=certificate"] == 1
    assert samples["noisegate_reload_refused", "what=certificate"] == 1


def test_processes_are_counted_together(tmp_path: Path) -> None:
    """With a folder, counters of all processes are added up, and the parent's empty gauges do not show."""
    program = """
        import os, sys
        from noisegate.webhook.metrics import Metrics
        folder = sys.argv[1]
        parent = Metrics(["mutate"], folder=folder)
        for _ in range(2):
            if os.fork() == 0:
                metrics = Metrics(["mutate"], folder=folder)
                metrics.endpoints["mutate"].count["allowed"]()
                metrics.in_flight.set(3)
                metrics.certificate_expiry.set(5)
                os._exit(0)
        os.wait(); os.wait()
        sys.stdout.buffer.write(parent.text())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    page = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    samples = _samples(page)
    assert samples["noisegate_requests_total", "endpoint=mutate", "result=allowed"] == 2
    assert samples["noisegate_requests_in_flight",] == 6
    assert samples["noisegate_certificate_expiry_timestamp_seconds",] == 5
