"""`noisegate registration`."""

import base64
from pathlib import Path

import pytest
import yaml

from noisegate.__main__ import main

ROOT = Path(__file__).parents[2]


def test_the_shipped_one_is_what_is_deployed(capsys: pytest.CaptureFixture[str]) -> None:
    """deploy/base has what the command prints, and it is YAML that says what the table says."""
    assert main(["registration"]) == 0
    text = capsys.readouterr().out
    assert text == (ROOT / "deploy" / "base" / "webhooks.yaml").read_text()
    kinds = [value["kind"] for value in yaml.safe_load_all(text)]
    assert kinds == ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]


def test_files_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules, authority and Service are the user's."""
    (tmp_path / "m.yaml").write_text("rules: [{name: r, when: {labels: {tier: gold}}}]")
    (tmp_path / "ca.crt").write_bytes(b"PEM")
    flags = [
        "--mutations",
        str(tmp_path / "m.yaml"),
        "--ca",
        str(tmp_path / "ca.crt"),
        "--service",
        "a.b",
        "--port",
        "8",
    ]
    assert main(["registration", *flags]) == 0
    mutating, _ = yaml.safe_load_all(capsys.readouterr().out)
    client = mutating["webhooks"][0]["clientConfig"]
    assert client == {
        "service": {"name": "a", "namespace": "b", "port": 8, "path": "/mutate"},
        "caBundle": base64.b64encode(b"PEM").decode(),
    }
    assert '"tier"' in mutating["webhooks"][0]["matchConditions"][0]["expression"]


def test_what_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad rules, a bad name, and rules that no condition can tell apart are told."""
    bad = tmp_path / "m.yaml"
    bad.write_text("rules: [{name: r}]")
    assert main(["registration", "--mutations", str(bad)]) == 2
    assert f"noisegate registration: {bad}:1" in capsys.readouterr().err
    assert main(["registration", "--service", "x"]) == 2
    assert capsys.readouterr().err == "noisegate registration: --service x: write it as NAME.NAMESPACE\n"
    bad.write_text("rules: [{name: r, when: {}}]")
    assert main(["registration", "--mutations", str(bad)]) == 0
    assert "note: mutations.yaml has a rule for every pod" in capsys.readouterr().err
