"""Whether a node can hold limits: each check by what is found, and what the node then says it holds."""

from typing import Any, Final

import pytest

from noisegate.enforcement.actions import Device
from noisegate.enforcement.kernel.containerd_config import ContainerdConfig, Validator
from noisegate.enforcement.kernel.probe import Facts
from noisegate.enforcement.kernel.runc import RuncFeatures
from noisegate.enforcement.plan.rdt import Owner
from noisegate.enforcement.preflight import Check, judge, standing
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.node import KINDS, Enforced
from noisegate.isolation import keys

CONFIG: Final = ContainerdConfig(nri=True, validator=Validator(enabled=True, tolerate_annotation=keys.TOLERATE_MISSING_PLUGINS))  # fmt: skip
GOOD: Final = Facts(
    kernel="6.12.41+deb13-amd64",
    hierarchy="cgroup2",
    controllers=frozenset({"cpu", "io", "memory", "pids"}),
    driver="systemd",
    pods_controllers=frozenset({"io", "memory"}),
    config=CONFIG,
    nri_socket="/var/run/nri/nri.sock",
    socket=True,
    store_folder="/var/lib/containerd",
    store=Device(8, 0),
    ifb="",
    runc=RuncFeatures("1.5.2", "1.3.0", *[True] * 6),
    resctrl=None,
    state="tmpfs",
)
OWNER: Final = Owner("enforcer", "resctrl is mounted")
ALL: Final = set(KINDS)


def missing(owner: Owner = OWNER, **facts: Any) -> tuple[dict[Enforced, str], list[Check]]:
    """Return what a node cannot hold and why, and the checks that did not pass."""
    checks = judge(GOOD._replace(**facts), owner, ())
    return dict(standing(checks, "").missing), [check for check in checks if not check.passed]


def test_a_good_node_holds_everything() -> None:
    """No check fails, none has something to mend, and each kind depends on some."""
    checks = judge(GOOD, OWNER, ())
    assert [check for check in checks if not check.passed or check.mend] == []
    assert standing(checks, "").on == ALL
    assert {kind for check in checks for kind in check.kinds} == ALL


@pytest.mark.parametrize(
    ("facts", "name", "kinds", "told"),
    [
        ({"kernel": "5.9.16-1-generic"}, "kernel", ALL, "5.9.16"),
        ({"kernel": "4.18.0-553.el8"}, "kernel", ALL, "4.18"),
        ({"hierarchy": "tmpfs"}, "cgroup version", {"disk"}, "tmpfs"),
        ({"hierarchy": ""}, "cgroup version", {"disk"}, "nothing is mounted"),
        ({"controllers": frozenset({"memory"})}, "cgroup controllers", {"disk"}, "lacks io"),
        ({"controllers": frozenset()}, "cgroup controllers", {"disk"}, "io and memory"),
        ({"pods_controllers": frozenset({"cpu"})}, "controllers of pods", {"disk"}, "systemd: cpu"),
        ({"config": CONFIG._replace(nri=False)}, "NRI", ALL, "10-noisegate.toml"),
        ({"config": CONFIG._replace(nri=False)}, "NRI", ALL, "/etc/containerd/config.toml is there and imports"),
        ({"socket": False}, "NRI socket", set(), ""),
        ({"config": CONFIG._replace(validator=Validator())}, "NRI validator", ALL, "off"),
        ({"config": CONFIG._replace(validator=Validator(True, (), "other/key"))}, "NRI validator", ALL, "other/key"),
        ({"config": CONFIG._replace(nri_seconds=0.5)}, "NRI time-out", ALL, "0.5 s"),
        ({"config": Refusal("ConfigUnreadable", "it cannot be read")}, "runtime configuration", ALL, "cannot be read"),
        ({"ifb": "Operation not supported"}, "ifb and htb", {"network"}, "Operation not supported"),
        ({"store": Refusal("VolumeNotThrottled", "it is on zfs")}, "container store", set(), ""),
        (
            {"config": CONFIG._replace(store="/data/c")},
            "container store's folder",
            {"disk"},
            "set disk.store of node.yaml to /data/c",
        ),
        ({"state": "ext4"}, "state folder", set(), ""),
        ({"runc": Refusal("RuncUnknown", "runc is not there")}, "runc features", set(), ""),
    ],
)
def test_each_check(facts: dict[str, Any], name: str, kinds: set[str], told: str) -> None:
    """What is wrong takes just the kinds that need it, and is said with what to do."""
    lost, failed = missing(**facts)
    assert [check.name for check in failed] == [name]
    assert lost.keys() == kinds
    assert all(told in why for why in lost.values()), lost


@pytest.mark.parametrize(
    "facts", [{"driver": "", "pods_controllers": frozenset()}, {"kernel": "5.10.0"}, {"kernel": "6.1"}]
)
def test_what_is_not_wrong(facts: dict[str, Any]) -> None:
    """A node before its first pod; the oldest kernel that is good."""
    assert missing(**facts) == ({}, [])


def test_a_socket_that_is_not_there() -> None:
    """The one that was looked for is named, and the runtime's where that is another."""
    (check,) = missing(socket=False)[1]
    assert (check.found, check.mend.startswith("see")) == ("/var/run/nri/nri.sock is not there", True)
    (check,) = missing(socket=False, nri_socket="/run/a.sock")[1]
    assert check.found.startswith("/run/a.sock is not there, and")
    assert "names /var/run/nri/nri.sock" in check.found + check.mend


def test_a_store_that_is_where_it_is_looked_for() -> None:
    """A folder that only node.yaml names may be that of the runtime's command line."""
    assert missing(store_folder="/data/c", config=CONFIG._replace(store="/data/c")) == ({}, [])
    assert missing(store_folder="/data/c") == ({}, [])


def test_a_validator_that_cannot_be_switched_off() -> None:
    """Without an annotation to do without it is as good."""
    assert missing(config=CONFIG._replace(validator=Validator(enabled=True))) == ({}, [])


def test_without_rdt() -> None:
    """The other kinds are held."""
    lost, failed = missing(Owner("none", "resctrl is not mounted", "mount it"))
    assert lost == {"rdt": "owner of RDT: none: resctrl is not mounted (mount it)"}
    assert len(failed) == 1


def test_what_is_switched_off_is_said() -> None:
    """node.yaml's word takes a kind away on a node that could hold it."""
    checks = judge(GOOD, OWNER, ("network",))
    assert standing(checks, "").on == {"disk", "rdt"}
    assert "set network.enforced" in standing(checks, "").missing["network"]


def test_the_first_reason_is_what_is_said() -> None:
    """One reason for each kind, the earliest check's."""
    lost, failed = missing(kernel="4.4", hierarchy="")
    assert len(failed) == 2
    assert lost["disk"].startswith("kernel: 4.4")


def test_a_runtime_that_does_not_know_us() -> None:
    """Nothing is held then, whatever the node is like."""
    stands = standing(judge(GOOD, OWNER, ()), "/run/nri.sock: No such file or directory")
    assert not stands.on
    assert stands.missing.keys() == ALL
    assert not stands.waiting
    assert all("/run/nri.sock" in why for why in stands.missing.values())


def test_a_runtime_that_is_waited_for() -> None:
    """What the checks leave is neither held nor given up; that a runtime which starts has no socket takes nothing away."""
    stands = standing(judge(GOOD._replace(socket=False, ifb="absent"), OWNER, ()), "it starts", patient=True)
    assert (stands.on, stands.waiting) == (set(), {"disk", "rdt"})
    assert stands.missing.keys() == ALL
    assert "the runtime does not know the enforcer: it starts" in stands.missing["disk"]
