"""What an OCI runtime says of its features, and what becomes of one that does not."""

import json
import stat
from pathlib import Path

import pytest

from noisegate.enforcement.kernel.runc import RuncFeatures, ask, parse
from noisegate.enforcement.refusal import Refusal

# As runc 1.5 prints it, in part.
RUNC = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.3.0",
    "hooks": ["createRuntime"],
    "linux": {
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "netDevices": {"enabled": True},
    },
    "annotations": {"org.opencontainers.runc.version": "1.5.2"},
}


def test_features_are_read() -> None:
    """Version, cgroups, RDT and network devices."""
    assert parse(json.dumps(RUNC)) == RuncFeatures("1.5.2", "1.3.0", True, True, True, True, True, True)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"linux": null, "annotations": []}', '{"linux": {"intelRdt": {"enabled": null}, "cgroup": {"v2": "yes"}}}'],
)
def test_what_is_not_said_is_unknown(text: str) -> None:
    """A missing field, or one of another type, is neither yes nor no."""
    assert parse(text) == RuncFeatures("", "", None, None, None, None, None, None)


def program(folder: Path, script: str) -> str:
    """Make a program."""
    path = folder / "runc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


def test_a_program_is_asked(tmp_path: Path) -> None:
    """The command runs as it is configured, with `features` behind it."""
    (tmp_path / "features.json").write_text(json.dumps(RUNC))
    runc = program(tmp_path, f'[ "$1 $2" = "--debug features" ] && cat {tmp_path}/features.json')
    assert ask([runc, "--debug"]).version == "1.5.2"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("echo 'no such\ncommand' >&2; exit 3", "ended with 3: no such command", id="another status"),
        pytest.param("echo '[]'", "prints no features: no object", id="no object"),
        pytest.param("echo 'unknown command'", "prints no features: Expecting value", id="no JSON"),
        pytest.param(r"printf '\377'", "prints no features: 'utf-8' codec", id="no text"),
        pytest.param("exec sleep 60", "did not answer within 0.2 s", id="no answer"),
    ],
)
def test_a_program_that_does_not_say(tmp_path: Path, script: str, told: str) -> None:
    """Everything but features is one refusal, with what happened."""
    with pytest.raises(Refusal) as error:
        ask([program(tmp_path, script)], seconds=0.2 if "sleep" in script else 10)
    assert error.value.reason == "RuncFeaturesUnknown"
    assert told in error.value.told


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """A missing program is told with its path, and with the setting that names another: as the host has it, without chroot."""
    with pytest.raises(Refusal, match=r"/runc features cannot be run: No such file or directory") as error:
        ask([str(tmp_path / "runc")])
    assert (
        error.value.mend == "set runtime.runc of node.yaml to its command on the host, such as [/usr/local/sbin/runc]"
    )
