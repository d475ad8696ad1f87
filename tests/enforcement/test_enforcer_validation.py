"""RDT classes in what the enforcer answers, and what it agrees to when all plugins have spoken."""

from typing import Any, Final

import pytest
from enforcercalls import BOTH, CLASSES, app, held, refusal_of, remove, start
from enforcerlab import DATA_DISK, PLUGIN, Lab, asks, container
from fakeresctrl import INTEL, FakeResctrl

from noisegate.enforcement.actions import IoLimits
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.nri.events import (
    UNADJUSTED,
    Adjustment,
    Container,
    Owners,
    Sandbox,
    Validation,
)
from noisegate.enforcement.plan.partitions import read
from noisegate.enforcement.rdt import NodeRdt
from noisegate.isolation import keys

# RDT and VALIDATE.


@pytest.fixture(name="rdt")
def _rdt(lab: Lab) -> NodeRdt:
    (lab.folder / "rdt").mkdir()
    fake = FakeResctrl(lab.folder / "rdt", INTEL)
    rdt = NodeRdt(Resctrl(fake.root, fake.mountinfo, fake), runtime_config="", starts_in_group=True)
    rdt.load(read(CLASSES, "classes.yaml"))
    rdt.reconcile()
    return rdt


GOLD: Final = {keys.RDT_OWN_POD: "gold"}


async def test_a_class_is_in_the_answer(lab: Lab, rdt: NodeRdt) -> None:
    """The container starts in its group, and the class counts as used."""
    enforcer = lab.enforcer(rdt=rdt)
    pod = lab.pod("a", GOLD)
    assert await enforcer.create_container(pod, app(pod)) == Adjustment(clos_id="noisegate-gold")
    assert enforcer.classes_in_use() == {"gold"}
    enforcer.count()
    assert lab.counted("pods", kind="rdt") == 1
    await remove(enforcer, pod)
    assert enforcer.classes_in_use() == set()
    await enforcer.close()


async def test_a_class_that_cannot_be_given(lab: Lab, rdt: NodeRdt) -> None:
    """It is told beside the other kinds' troubles and stays in status until a container has its class."""
    enforcer = lab.enforcer(rdt=rdt)
    pod = lab.pod("a", {**BOTH, keys.RDT_OWN_POD: "golt"}, foreign="tbf")
    refusal = await refusal_of(enforcer.create_container(pod, app(pod)))
    assert "rdt: RDT class golt is unknown on this node; known: gold (write gold)" in str(refusal)
    assert "network: veth1 has a root qdisc tbf" in str(refusal)
    await enforcer.look_round()
    assert set(enforcer.troubles.of["a"]) == {"network", "rdt"}
    assert lab.counted("failures_total", kind="rdt") == lab.counted("refusals_total", kind="rdt") == 1
    assert set(lab.reasons()) == {"RdtClassUnknown", "ForeignQdisc"}
    await enforcer.close()


async def test_rdt_that_is_switched_off(lab: Lab, rdt: NodeRdt) -> None:
    """Who asks for a class of ours is refused; the runtime's own keys are the runtime's."""
    enforcer = lab.enforcer(lab.holder(enforced=("disk", "network")), rdt)
    pod = lab.pod("a", GOLD)
    assert (await refusal_of(enforcer.create_container(pod, app(pod)))).reason == "NotEnforced"
    theirs = lab.pod("b", {**BOTH, keys.RDT_RUNTIME_POD: "gold"})
    assert await enforcer.create_container(theirs, app(theirs)) == UNADJUSTED
    await enforcer.close()


def proposal(pod: Sandbox, one: Container, **what: Any) -> Validation:
    """Return what is about to be done to a container, by us unless it is said otherwise."""
    adjustment = Adjustment(rdt_class=what.get("rdt_class"), clos_id=what.get("clos_id", "noisegate-gold"))
    owners = Owners(what.get("rdt_class_by", ""), what.get("clos_id_by", PLUGIN), what.get("schemata_by", ""))
    return Validation(pod, one, adjustment, owners, (PLUGIN, "90-other"))


class Test_validation:  # noqa: N801  (the name is part of the sentence)
    """A container that asks starts as it was held, or not at all."""

    async def test_agrees_to_what_we_answered(self, lab: Lab, rdt: NodeRdt) -> None:
        """Ours, unchanged, by us."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", {**BOTH, **GOLD})
        one = await start(enforcer, pod)
        await enforcer.validate(proposal(pod, one))
        await enforcer.close()

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"clos_id": "theirs"}, "clos_id of container app would be theirs by plugin 10-noisegate instead of noisegate-gold"),
            ({"clos_id": None, "clos_id_by": ""}, "would be none by plugin nobody instead of noisegate-gold"),
            ({"clos_id_by": "90-other"}, "would be noisegate-gold by plugin 90-other instead of"),
            ({"clos_id_by": "-90-other"}, "by plugin -90-other instead of"),
            ({"schemata_by": "90-other"}, "plugin 90-other would change the schemata of noisegate-gold"),
        ],
    )  # fmt: skip
    async def test_refuses_what_another_made_of_it(
        self, lab: Lab, rdt: NodeRdt, changed: dict[str, Any], told: str
    ) -> None:
        """Value and owner must be ours; and nobody else may say what the group means."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", GOLD)
        one = await start(enforcer, pod)
        refusal = await refusal_of(enforcer.validate(proposal(pod, one, **changed)))
        assert (refusal.reason, told in refusal.told) == ("AdjustmentChanged", True)
        await enforcer.close()

    @pytest.mark.parametrize(
        ("owners", "told"),
        [
            (Owners(cgroups_path="90-other"), "plugin 90-other would give container app another cgroup"),
            (Owners(namespaces={"network": "90-other"}), "plugin 90-other would give container app another network names"),
            (Owners(namespaces={"network": "-05-other"}), "plugin -05-other would give container app another network nam"),
            (Owners(mounts={"/data": "90-other"}), "plugin 90-other would give container app something else at /data"),
            (Owners(mounts={"/data": "-90-other"}), "plugin -90-other would give container app something else at /data"),
            (Owners(mounts={"/data/": "90-other"}), "plugin 90-other would give container app something else at /data"),
            (Owners(mounts={"data": "10-another"}), "plugin 10-another would give container app something else at /data"),
            (Owners(devices={"/data": "90-other"}), "plugin 90-other would give container app something else at /data"),
        ],
    )  # fmt: skip
    async def test_refuses_what_would_pass_the_limits_by(self, lab: Lab, owners: Owners, told: str) -> None:
        """Limits are the pod's cgroup's and its interface's: a container that is elsewhere, or has another disk there, has none."""
        enforcer = lab.enforcer()
        pod = lab.pod("a", BOTH)
        one = await start(enforcer, pod)
        refusal = await refusal_of(enforcer.validate(Validation(pod, one, UNADJUSTED, owners)))
        assert (refusal.reason, told in refusal.told) == ("AdjustmentChanged", True)
        await enforcer.close()

    async def test_agrees_to_what_others_may_change(self, lab: Lab) -> None:
        """Other mounts, devices and namespaces; and what a plugin before us changed, we have looked at."""
        enforcer = lab.enforcer()
        pod = lab.pod("a", BOTH)
        one = await start(enforcer, pod)
        others = Owners(
            unified={"memory.high": "90-other"},
            namespaces={"ipc": "90-other"},
            mounts={"/data": "05-other", "/database": "90-other"},
            devices={"/dev/x": "90-other"},
        )
        await enforcer.validate(Validation(pod, one, UNADJUSTED, others))
        await enforcer.close()

    async def test_where_the_runtime_owns_rdt(self, lab: Lab, rdt: NodeRdt) -> None:
        """The class itself is what must be ours."""
        theirs = NodeRdt(rdt._resctrl, runtime_config="/etc/rdt.yaml", starts_in_group=True)
        rdt._resctrl._calls.mkdir(rdt._resctrl.root / "silver")
        theirs.reconcile()
        enforcer = lab.enforcer(rdt=theirs)
        pod = lab.pod("a", {keys.RDT_OWN_POD: "silver"})
        one = app(pod)
        assert await enforcer.create_container(pod, one) == Adjustment(rdt_class="silver")
        good: dict[str, Any] = {"clos_id": None, "clos_id_by": "", "rdt_class": "silver", "rdt_class_by": PLUGIN}
        await enforcer.validate(proposal(pod, one, **good))
        refusal = await refusal_of(enforcer.validate(proposal(pod, one, **{**good, "rdt_class": "gold"})))
        assert "rdt_class of container app would be gold" in refusal.told
        await enforcer.close()

    @pytest.mark.parametrize("before", ["nothing", "another container", "its predecessor"])
    async def test_refuses_who_was_not_held(self, lab: Lab, enforcer: Enforcer, before: str) -> None:
        """CreateContainer never reached us for this very container, whatever reached us before."""
        pod = lab.pod("a", BOTH)
        if before != "nothing":
            await enforcer.create_container(pod, app(pod) if before == "its predecessor" else container(pod, "other"))
        refusal = await refusal_of(enforcer.validate(Validation(pod, app(pod, 2), UNADJUSTED, Owners())))
        assert (refusal.reason, "container app asks for limits" in refusal.told) == ("NotHeld", True)

    async def test_agrees_after_a_restart_of_ours(self, lab: Lab, enforcer: Enforcer) -> None:
        """CreateContainer was answered by the process before: the ledger knows the container."""
        pod = lab.pod("a", BOTH)
        one = await start(enforcer, pod)
        again = lab.enforcer()
        await again.validate(Validation(pod, one, UNADJUSTED, Owners()))
        await again.close()

    async def test_does_not_concern_who_asks_for_nothing_that_can_be_meant(self, lab: Lab, enforcer: Enforcer) -> None:
        """What is malformed is left out, never refused."""
        pod = lab.pod("a", asks("{"))
        await enforcer.validate(Validation(pod, app(pod), UNADJUSTED, Owners("90-other", "90-other", "90-other")))

    async def test_refuses_a_class_that_went_in_between(self, lab: Lab, rdt: NodeRdt) -> None:
        """The class file changed between CREATE and VALIDATE."""
        enforcer = lab.enforcer(rdt=rdt)
        pod = lab.pod("a", GOLD)
        one = await start(enforcer, pod)
        rdt.load(None)
        rdt.reconcile()
        assert (await refusal_of(enforcer.validate(proposal(pod, one)))).reason in {"RdtNotAvailable", "ClassKept"}
        await enforcer.close()


async def test_foreign_limits_come_back(lab: Lab, enforcer: Enforcer) -> None:
    """What others had on a device that is asked for stands again when the pod has gone."""
    pod = lab.pod("a", BOTH)
    lab.cgroups.foreign(pod.cgroup_parent, DATA_DISK, IoLimits(rbps=7777, riops=99))
    before = lab.picture()
    await start(enforcer, pod)
    assert held(lab, pod)
    await enforcer.stop_pod_sandbox(pod)
    await remove(enforcer, pod)
    assert lab.picture() == before
