"""Keys that are noisegate's own."""

import pytest

from noisegate.isolation import reserved
from noisegate.isolation.problems import Findings, Problem

KNOWN = "noisegate.io/devices-container, noisegate.io/profile, noisegate.io/rdt-class, noisegate.io/volume-paths, noisegate.io/rdt-class.<container>"


def test_known() -> None:
    """Every key that exists passes, and what is under another prefix is not ours to know."""
    found = Findings()
    known = ("profile", "volume-paths", "devices-container", "rdt-class", "rdt-class.app")
    reserved.check_known({f"noisegate.io/{name}": "x" for name in known} | {"example.com/typo": ""}, found)

    assert found.problems == found.warnings == []


@pytest.mark.parametrize(
    ("key", "hint"),
    [("noisegate.io/rdt-clas", "write noisegate.io/rdt-class"), ("noisegate.io/zzz-zzz-zzz-zzz-zzz-zzz-zzz-zzz", "")],
)
def test_unknown(key: str, hint: str) -> None:
    """A key that does not exist is an error, with what was meant and what there is."""
    found = Findings()
    reserved.check_known({key: "gold"}, found)

    assert found.problems == [
        Problem(
            "NG801",
            f"metadata.annotations[{key}]",
            "gold",
            f"noisegate knows no annotation {key}; it knows {KNOWN}",
            hint,
        )
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("required-plugins.noderesource.dev", "[]"),
        ("required-plugins.noderesource.dev", ""),
        ("required-plugins.noderesource.dev", '["noisegate", "other"]'),
        ("required-plugins.noderesource.dev/container.app", '["noisegate"]'),
        ("required-plugins.noderesource.dev/pod", "[]"),
        ("tolerate-missing-nri-plugins.noderesource.dev", "true"),
        ("tolerate-missing-nri-plugins.noderesource.dev/container.app", "true"),
    ],
)
def test_reserved(key: str, value: str) -> None:
    """The runtime's keys of an asking pod are noisegate's, in every form."""
    found = Findings()
    reserved.check_enforced({key: value}, {}, ("disk",), found)

    (problem,) = found.problems
    assert (problem.code, problem.path, problem.hint) == (
        "NG802",
        f"metadata.annotations[{key}]",
        "leave the annotation out",
    )


def test_ours_already() -> None:
    """What noisegate itself set is right."""
    found = Findings()
    annotations = {"required-plugins.noderesource.dev": '["noisegate"]'}
    reserved.check_enforced(
        annotations, {"noisegate.io/enforces-disk": "true", "other": "false"}, ("disk", "network"), found
    )

    assert found.problems == []


def test_node_label() -> None:
    """A node selector that says otherwise is an error, for the kinds that are asked for."""
    found = Findings()
    selector = {
        "noisegate.io/enforces-disk": "false",
        "noisegate.io/enforces-network": "false",
        "noisegate.io/enforces-rdt": "",
    }
    reserved.check_enforced({}, selector, ("disk", "rdt"), found)

    assert found.problems == [
        Problem(
            "NG803",
            f"spec.nodeSelector[noisegate.io/enforces-{kind}]",
            value,
            f'a pod that asks for {kind} limits runs only on nodes with noisegate.io/enforces-{kind}="true"',
            "leave the entry out",
        )
        for kind, value in (("disk", "false"), ("rdt", ""))
    ]
