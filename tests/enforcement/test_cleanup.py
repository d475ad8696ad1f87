"""A node returned to what it was before the enforcer."""

import errno
from pathlib import Path
from typing import Final

import pytest
from enforcerlab import DATA_DISK, Lab, asks, container, disk, network
from fakenetwork import FakeLinks, Ifb
from fakeresctrl import INTEL, FakeResctrl

from noisegate.enforcement import survey
from noisegate.enforcement.actions import IoLimits
from noisegate.enforcement.cleanup import cleanup
from noisegate.enforcement.config import Settings
from noisegate.enforcement.hostlock import AlreadyHeldError, host_lock
from noisegate.enforcement.intent import intent as intents
from noisegate.enforcement.kernel.mountinfo import Mounts
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.nri.events import Sandbox

BOTH: Final = asks(disk(data="4Mi", layers="1Mi"), network(ingress="40M", egress="20M"))


@pytest.fixture(name="lab")
def _lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a node whose parts stand in for this machine's, which a test may not touch."""
    lab = Lab(tmp_path)
    (tmp_path / "rdt").mkdir()
    fake = FakeResctrl(tmp_path / "rdt", INTEL)
    resctrl = Resctrl(fake.root, fake.mountinfo, fake)
    parts = survey.Parts(lab.cgroups, FakeLinks(lab.network), lab.shaper, Mounts(), lab.places, resctrl)
    monkeypatch.setattr(survey.Parts, "of", lambda _settings: parts)
    monkeypatch.setattr(survey, "boot", lambda: "boot")
    return lab


def settings(lab: Lab) -> Settings:
    """Return node.yaml's settings."""
    return Settings(state=str(lab.folder / "state"))


def taken(lab: Lab, uid: str) -> Sandbox:
    """Have an enforcer hold a pod, and die."""
    pod = lab.pod(uid, BOTH)
    intent = intents.choose(intents.Sandbox(uid, pod.namespace, pod.name, pod.annotations))
    held = lab.holder().take(intent, pod, (container(pod, data="/data/x", more="/srv/x"),))
    assert held.refusals == {}
    return pod


def test_all_of_ours_goes_and_nothing_else(lab: Lab) -> None:
    """Pods that still run, an ifb of nobody, a group of resctrl; foreign limits, links and groups are as they were."""
    first = lab.pod("z", {})
    lab.cgroups.foreign(first.cgroup_parent, DATA_DISK, IoLimits(rbps=7777))
    resctrl = survey.Parts.of(settings(lab)).resctrl
    resctrl._calls.mkdir(resctrl.root / "theirs")
    before = lab.snapshot()
    pods = [taken(lab, uid) for uid in ("a", "b")]
    lab.network.put_ifb("ng0123456789ab", Ifb(8))
    resctrl.make("noisegate-gold")
    lines = list(cleanup(settings(lab)))
    assert all(good for _, good in lines)
    assert [line.partition(" ")[0] for line, _ in lines] == [
        "default/pod-a",
        "default/pod-b",
        "ng0123456789ab:",
        "resctrl",
    ]
    for pod in pods:
        lab.end(pod)
        lab.remove(pod)
    assert {
        file: text for file, text in lab.snapshot().items() if "/poda/" not in file and "/podb/" not in file
    } == before
    assert [lab.io(first), resctrl.names()] == [{DATA_DISK: IoLimits(rbps=7777)}, ["theirs"]]
    assert [file.name for file in (lab.folder / "state").iterdir()] == ["lock"]
    assert list(cleanup(settings(lab))) == []


def test_an_enforcer_that_runs_is_in_the_way(lab: Lab) -> None:
    """It would put back what is taken away."""
    pod = taken(lab, "a")
    before = lab.snapshot()
    with host_lock(lab.folder / "state"), pytest.raises(AlreadyHeldError):
        list(cleanup(settings(lab)))
    assert (lab.snapshot(), lab.io(pod) != {}) == (before, True)


def test_what_cannot_be_undone_is_said_and_kept(lab: Lab) -> None:
    """The rest goes; the next attempt knows what is left."""
    taken(lab, "a")
    lab.shaper.fails["remove"] = errno.EPERM
    lines = list(cleanup(settings(lab)))
    assert lines
    assert not any(good for _, good in lines)
    assert "EPERM" in lines[0][0]
    assert (lab.folder / "state/pods/a.json").exists()
    lab.shaper.fails["ours"] = errno.EPERM
    del lab.shaper.fails["remove"]
    (one, failed) = cleanup(settings(lab))
    assert (one[1], failed[1]) == (True, False)
    lab.shaper.fails.clear()
    assert list(cleanup(settings(lab))) == []


def test_a_damaged_record_is_said(lab: Lab) -> None:
    """What it told of cannot be known; what bears our mark goes all the same."""
    pod = taken(lab, "a")
    (lab.folder / "state/pods/a.json").write_bytes(b"{")
    lines = list(cleanup(settings(lab)))
    assert [good for _, good in lines] == [False, True]
    assert lines[0][0].startswith("a.json: it is cut short")
    assert lab.rates(pod) == (None, None)
