"""`noisegate controller`: what its flags say; what it does is in tests/apiserver/test_controller.py."""

from datetime import timedelta

import pytest

from noisegate.__main__ import main, parser
from noisegate.cli import controller
from noisegate.control.controller import Config


def test_without_flags_all_is_as_deployed() -> None:
    """The flags' defaults are the configuration's."""
    assert controller.config_of(parser().parse_args(["controller"])) == Config()


def test_every_flag_counts() -> None:
    """Each has a place in the configuration."""
    words = (
        "--kubeconfig k --namespace n --service s --config-map c --certificates external --leaf-life 90d --ca-life 2y "
        "--look-every 1 --settle 5 --narrow-after 60 --lease 9 --health-address ::1 --health-port 0"
    )
    assert controller.config_of(parser().parse_args(["controller", *words.split()])) == Config(
        kubeconfig="k",
        namespace="n",
        service="s",
        config_map="c",
        certificates=False,
        leaf_life=timedelta(days=90),
        authority_life=timedelta(days=730),
        look_every=1.0,
        settle=5.0,
        narrow_after=60.0,
        lease=9.0,
        health_address="::1",
        health_port=0,
    )


@pytest.mark.parametrize("value", ["-1", "x", "86401", "nan"])
def test_seconds_have_a_range(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is none is refused with the range."""
    with pytest.raises(SystemExit):
        main(["controller", f"--settle={value}"])
    assert f"argument --settle: {value}: allowed: 0 to 86400 seconds" in capsys.readouterr().err


def test_outside_a_cluster_a_kubeconfig_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says so."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["controller"]) == 2
    assert capsys.readouterr().err.startswith("noisegate controller: this is no pod, and there is no --kubeconfig: ")
