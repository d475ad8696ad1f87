"""Whether this node can hold limits: what was found, what is wanted, and what to do about the difference."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from noisegate.enforcement.kernel.containerd_config import ContainerdConfig
from noisegate.enforcement.kernel.probe import Facts
from noisegate.enforcement.plan.rdt import Owner
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.node import KINDS, Enforced, Standing
from noisegate.isolation import keys

SOCKET: Final = "NRI socket"
LEAST_KERNEL: Final = (5, 10)
"""The oldest that is kept up with cgroup v2's io controller as it is used here."""
LEAST_SECONDS: Final = 1.0
"""Of the runtime's patience with a plugin: we answer within three quarters of it."""
ALL: Final[tuple[Enforced, ...]] = KINDS
_DROP_IN: Final = (
    "put deploy/node/10-noisegate.toml into /etc/containerd/conf.d, see that /etc/containerd/config.toml is there and imports "
    "that folder, and restart containerd"
)
"""Without its main file containerd reads no other (cmd/containerd/command/main.go), whatever its default for `imports` is."""


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: In a few words.
        passed: Whether it is as wanted.
        found: What is there.
        wanted: What should be.
        mend: What to do; empty where it passed.
        kinds: What this node cannot hold without it; none: nothing, it is said for information.
    """

    name: str
    passed: bool
    found: str
    wanted: str
    mend: str
    kinds: tuple[Enforced, ...]


def judge(facts: Facts, owner: Owner, switched_off: Sequence[Enforced]) -> list[Check]:
    """Return all checks of a node.

    Args:
        facts: What was found.
        owner: Of RDT.
        switched_off: Kinds that node.yaml says are not to be held here.
    """
    checks = [*_kernel(facts), *_runtime(facts), *_store(facts), *_network(facts), *_rdt(facts, owner)]
    checks += [
        Check(f"{kind} in node.yaml", False, "enforced: false", "enforced: true", f"set {kind}.enforced", (kind,))
        for kind in switched_off
    ]
    return checks


def standing(checks: Sequence[Check], disconnected: str, *, patient: bool = False) -> Standing:
    """Return what this node says it holds.

    Args:
        checks: By `judge`.
        disconnected: Why the runtime does not know us; empty: it does.
        patient: Whether it is waited for.
    """
    missing: dict[Enforced, str] = {}
    for check in checks:
        # A runtime that starts has no socket for a moment: whether it knows us is told by the connection.
        if not check.passed and check.name != SOCKET:
            for kind in check.kinds:
                missing.setdefault(kind, f"{check.name}: {check.found}" + (f" ({check.mend})" if check.mend else ""))
    passed = frozenset(set(KINDS) - missing.keys())
    if not disconnected:
        return Standing(passed, missing)
    missing = dict.fromkeys(KINDS, f"the runtime does not know the enforcer: {disconnected}")
    return Standing(frozenset(), missing, passed if patient else frozenset())


def _check(name: str, problem: bool, found: str, wanted: str, mend: str, kinds: tuple[Enforced, ...] = ()) -> Check:
    return Check(name, not problem, found, wanted, mend if problem else "", kinds)


def _kernel(facts: Facts) -> list[Check]:
    numbers = tuple(int(word) for word in facts.kernel.split("-")[0].split(".")[:2] if word.isdecimal())
    missing = sorted({"io", "memory"} - facts.controllers)
    checks = [
        _check("kernel", numbers < LEAST_KERNEL, facts.kernel, "5.10 or newer", "boot a newer kernel", ALL),
        _check(
            "cgroup version",
            facts.hierarchy != "cgroup2",
            facts.hierarchy or "nothing is mounted",
            "cgroup2",
            "boot with systemd.unified_cgroup_hierarchy=1; Kubernetes itself wants cgroup v2 since 1.35",
            ("disk",),
        ),
        _check(
            "cgroup controllers",
            bool(missing),
            " ".join(sorted(facts.controllers)) or "none",
            "io and memory: together they count buffered writes",
            f"the kernel lacks {' and '.join(missing)} in cgroup v2, or a cgroup v1 hierarchy holds it",
            ("disk",),
        ),
    ]
    if facts.driver:
        told = f"{facts.driver}: {' '.join(sorted(facts.pods_controllers)) or 'none'}"
        mend = "restart the kubelet: it switches on what the kernel has"
        checks.append(_check("controllers of pods", "io" not in facts.pods_controllers, told, "io", mend, ("disk",)))
    else:
        checks.append(_check("controllers of pods", False, "the kubelet has made no group yet", "io", ""))
    checks.append(
        _check(
            "state folder",
            facts.state != "tmpfs",
            facts.state or "unknown",
            "a tmpfs, which a reboot empties as it undoes what is recorded there",
            "set state to a folder below /run",
        )
    )
    return checks


def _runtime(facts: Facts) -> list[Check]:
    config = facts.config
    if isinstance(config, Refusal):
        found = _check("runtime configuration", True, config.told, "readable", config.mend or "set runtime.config", ALL)
        return [found]
    files = ", ".join(config.files) or "none: containerd's defaults"
    away = f"{facts.nri_socket} is not there"
    if config.nri_socket != facts.nri_socket:
        away += f", and the runtime's configuration names {config.nri_socket}"
    return [
        _check("runtime configuration", False, files, "readable", ""),
        _check("NRI", not config.nri, "on" if config.nri else "off", "on", _DROP_IN, ALL),
        _check(
            SOCKET,
            not facts.socket,
            "there" if facts.socket else away,
            "there",
            "see that containerd runs, and that nri.socket of node.yaml names its socket",
            ALL,
        ),
        _validator(config),
        _check(
            "NRI time-out",
            config.nri_seconds < LEAST_SECONDS,
            f"{config.nri_seconds:g} s",
            f"{LEAST_SECONDS:g} s or more",
            "raise plugin_request_timeout of the runtime's NRI",
            ALL,
        ),
    ]


def _validator(config: ContainerdConfig) -> Check:
    """A pod that needs the enforcer must be refused while it is away: without the validator it starts without limits."""
    validator = config.validator
    wanted = f"on, with {keys.TOLERATE_MISSING_PLUGINS} or no annotation to do without"
    if not validator.enabled:
        return _check("NRI validator", True, "off", wanted, _DROP_IN, ALL)
    other = validator.tolerate_annotation not in {"", keys.TOLERATE_MISSING_PLUGINS}
    found = f"on, but annotation {validator.tolerate_annotation} switches it off" if other else "on"
    mend = f"name it {keys.TOLERATE_MISSING_PLUGINS}, which the webhook keeps from pods that ask"
    return _check("NRI validator", other, found, wanted, mend, ALL)


def _store(facts: Facts) -> list[Check]:
    """Where the writable layers are: looked for in another folder, their limits would stand on that one's disk."""
    config, device = facts.config, facts.store
    named = config.store if isinstance(config, ContainerdConfig) else ""
    other = named not in {"", facts.store_folder}
    found = f"{facts.store_folder}, but the runtime's configuration names {named}" if other else facts.store_folder
    bad = isinstance(device, Refusal)
    return [
        _check(
            "container store's folder",
            other,
            found,
            "the runtime's own",
            f"set disk.store of node.yaml to {named}",
            ("disk",),
        ),
        _check("container store", bad, str(device), 'a device, for pods that ask for "*"', "", ()),
    ]


def _network(facts: Facts) -> list[Check]:
    mend = "load the modules ifb, sch_htb, cls_u32 and act_mirred; the enforcer needs NET_ADMIN"
    return [_check("ifb and htb", bool(facts.ifb), facts.ifb or "can be made", "can be made", mend, ("network",))]


def _rdt(facts: Facts, owner: Owner) -> list[Check]:
    features = facts.runc
    known = features.told if isinstance(features, Refusal) else f"runc {features.version or 'of another kind'}"
    mend = features.mend if isinstance(features, Refusal) else ""
    found = f"{owner.who}: {owner.why}"
    return [
        Check("runc features", not isinstance(features, Refusal), known, "known", mend, ()),
        Check("owner of RDT", owner.who != "none", found, "runtime or enforcer", owner.mend, ("rdt",)),
    ]
