"""SR-IOV attachments: fit, look-up, node labels."""

from typing import Any

import msgspec
import pytest

from noisegate.isolation import networks, sriov
from noisegate.isolation.catalogue import NOTHING_KNOWN, Catalogue, Network
from noisegate.isolation.keys import DEFAULT_NETWORK, NETWORKS
from noisegate.isolation.networks import Selection
from noisegate.isolation.policy import KuryrPolicy, SriovPolicy
from noisegate.isolation.problems import Findings, Problem
from noisegate.isolation.sriov import NOTHING, Attachments
from noisegate.webhook.objects import PodSpec

RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
SELECTOR = "k8s.v1.cni.cncf.io/nodeSelector"
SUBNET = "88d0b025-2710-4f02-a348-2829853b45da"
KURYR = {"openstack.org/kuryr-config": f'{{"subnetId": "{SUBNET}", "driverType": "sriov"}}'}
AT = f"metadata.annotations[{NETWORKS}]"
AT_DEFAULT = f"metadata.annotations[{DEFAULT_NETWORK}]"
POLICY = SriovPolicy(
    kuryr=KuryrPolicy(
        default_physnet_subnets={"physnet1": SUBNET},
        physnet_resource_mappings={"physnet1": "sriov_k"},
        resource_driver_mappings={"sriov_k": "vfio-pci"},
    )
)
KNOWN = Catalogue(
    networks={
        "here/fast": Network({RESOURCE: "intel.com/sriov_a", SELECTOR: "nic=cx6"}, '{"type": "sriov"}'),
        "here/slow": Network({RESOURCE: "intel.com/sriov_b", SELECTOR: "rack"}, '{"type": "sriov"}'),
        "here/plain": Network({}, '{"type": "bridge"}'),
        "here/e810": Network({SELECTOR: "nic=e810"}, ""),
        "here/broken": Network({RESOURCE: "intel.com/sriov_a"}, '{"type": "sriov", "vlan": 5000}'),
        "here/ruined": Network({}, '{"type": "sriov", "vlan": -1, "vlanQoS": 9, "trust": 1, "spoofchk": 1, "mac": 1}'),
        "here/kuryr": Network(KURYR, ""),
        "there/far": Network({RESOURCE: "intel.com/sriov_a"}, '{"type": "sriov"}'),
        "kube-system/main": Network({RESOURCE: "intel.com/sriov_m"}, '{"type": "sriov"}'),
    }
)


def read(text: str, default: str | None = None) -> tuple[Selection, ...]:
    """Read annotations that are sound, the default network first."""
    found = Findings()
    selections = () if default is None else networks.read(DEFAULT_NETWORK, default, found)
    selections += networks.read(NETWORKS, text, found) if text else ()
    assert (found.problems, found.warnings) == ([], [])
    return selections


def spec(**fields: Any) -> PodSpec:
    """Return a decoded pod spec."""
    return msgspec.convert(fields, PodSpec)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("a,a", None, id="no names"),
        pytest.param("a@net1,b@net2", None, id="names"),
        pytest.param("a@net1,b", None, id="Multus counts on"),
        pytest.param(
            "a@net1", '[{"name": "m", "namespace": "x", "interface": "eth0"}]', id="the default network is eth0"
        ),
        pytest.param("a", "x/m", id="default network beside others"),
    ],
)
def test_fits(text: str, default: str | None) -> None:
    """Names that differ fit, and so do attachments without names."""
    found = Findings()
    sriov.fit(read(text, default), spec(), found)

    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("text", "place", "value", "message", "hint"),
    [
        pytest.param(
            "a@eth0",
            f"{AT}[0]",
            "eth0",
            'interface "eth0" is in every pod already',
            "leave it out, or write net1",
            id="eth0",
        ),
        pytest.param(
            "a@lo", f"{AT}[0]", "lo", 'interface "lo" is in every pod already', "leave it out, or write net1", id="lo"
        ),
        pytest.param(
            "a@x,b@y,c@x",
            f"{AT}[2]",
            "x",
            f'interface "x" is also asked for by {AT}[0]; each name can be used once',
            "leave it out: Multus counts net1, net2, ...",
            id="twice",
        ),
    ],
)
def test_interface_taken(text: str, place: str, value: str, message: str, hint: str) -> None:
    """An interface's name is used once in a pod."""
    found = Findings()
    sriov.fit(read(text), spec(), found)

    assert (found.problems, found.warnings) == ([Problem("NG411", f"{place}.interface", value, message, hint)], [])


def test_default_network_is_not_the_loopback() -> None:
    """The default network may be called eth0, not lo."""
    found = Findings()
    sriov.fit(read("", '[{"name": "m", "namespace": "x", "interface": "lo"}]'), spec(), found)

    message = 'interface "lo" is in every pod already'
    assert found.problems == [
        Problem("NG411", f"{AT_DEFAULT}[0].interface", "lo", message, "leave it out, or write net1")
    ]


def test_interface_may_collide() -> None:
    """A name that Multus would give to another element is a warning: a cluster may have more default networks."""
    found = Findings()
    sriov.fit(read("a@net2,b"), spec(), found)

    message = f'Multus will call this interface "net2", which {AT}[0] asks for'
    assert (found.problems, found.warnings) == (
        [],
        [Problem("NG464", f"{AT}[1]", "b", message, "name every interface, or none")],
    )


def test_host_network() -> None:
    """A pod on the host's network gets no attachments."""
    found = Findings()
    sriov.fit(read("a"), spec(hostNetwork=True), found)
    sriov.fit((), spec(hostNetwork=True), found)

    message = "a pod on the host's network gets no attachments of its own"
    hint = "leave hostNetwork out, or the networks annotation"
    assert found.problems == [Problem("NG412", "spec.hostNetwork", "true", message, hint)]


@pytest.mark.parametrize(
    ("selections", "expected"),
    [
        pytest.param((), NOTHING, id="nothing"),
        pytest.param(read("plain"), Attachments({}, frozenset(), {}, ("here/plain",), True), id="no resource"),
        pytest.param(
            read("fast"),
            Attachments({"intel.com/sriov_a": 1}, frozenset(), {"nic": "cx6"}, ("here/fast",), True),
            id="one",
        ),
        pytest.param(
            read("fast,there/far,here/fast,slow"),
            Attachments(
                {"intel.com/sriov_a": 3, "intel.com/sriov_b": 1},
                frozenset(),
                {"nic": "cx6", "rack": ""},
                ("here/fast", "there/far", "here/slow"),
                True,
            ),
            id="several",
        ),
        pytest.param(
            read("kuryr,kuryr"),
            Attachments({"intel.com/sriov_k": 2}, frozenset({"intel.com/sriov_k"}), {}, ("here/kuryr",), True),
            id="Kuryr",
        ),
        pytest.param(
            read("plain", "kube-system/main"),
            Attachments({"intel.com/sriov_m": 1}, frozenset(), {}, ("kube-system/main", "here/plain"), True),
            id="default network",
        ),
    ],
)
def test_judge(selections: tuple[Selection, ...], expected: Attachments) -> None:
    """Each reference to a network with a resource takes one unit."""
    found = Findings()

    assert sriov.judge(selections, "here", POLICY, KNOWN, found) == expected
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("name", "full", "hint"),
    [
        pytest.param("fats", "here/fats", "write here/fast", id="misspelt"),
        pytest.param("far", "here/far", "write there/far", id="in another namespace"),
        pytest.param("there/fast", "there/fast", "write here/fast", id="in the pod's own"),
        pytest.param("zzz", "here/zzz", "create it in namespace here", id="unlike any"),
        pytest.param("nowhere/zzz", "nowhere/zzz", "create it in namespace nowhere", id="empty namespace"),
    ],
)
def test_no_such_network(name: str, full: str, hint: str) -> None:
    """A network that does not exist is a problem, with the one that was probably meant."""
    found = Findings()
    attachments = sriov.judge(read(f"plain,{name}"), "here", POLICY, KNOWN, found)

    assert attachments == Attachments({}, frozenset(), {}, ("here/plain", full), False)
    message = f"NetworkAttachmentDefinition {full} does not exist"
    assert (found.problems, found.warnings) == (
        [Problem("NG413", f"{AT}[1]", name.rpartition("/")[2], message, hint)],
        [],
    )


def test_many_networks_are_not_searched() -> None:
    """In a namespace of very many networks no similar name is looked for."""
    found = Findings()
    many = Catalogue(networks={f"here/network-{number}": Network({}, "") for number in range(1001)})
    sriov.judge(read("network-x"), "here", POLICY, many, found)

    assert [problem.hint for problem in found.problems] == ["create it in namespace here"]


def test_few_suggestions() -> None:
    """Once some problems are known, no more similar names are looked for."""
    found = Findings()
    sriov.judge(read(",".join(f"fas-{number}" for number in range(9))), "here", POLICY, KNOWN, found)

    assert [problem.hint for problem in found.problems] == ["write here/fast"] * 8 + ["create it in namespace here"]


@pytest.mark.parametrize(
    ("policy", "later"),
    [(SriovPolicy.model_validate({"missingNetwork": "warn"}), False), (POLICY, True)],
    ids=["policy", "template"],
)
def test_missing_network_may_come_later(policy: SriovPolicy, later: bool) -> None:
    """Where policy says so, and in templates, a missing network is a warning."""
    found = Findings()
    attachments = sriov.judge(read("fast,zzz,zzz"), "here", policy, KNOWN, found, later=later)

    assert attachments == Attachments(
        {"intel.com/sriov_a": 1}, frozenset(), {"nic": "cx6"}, ("here/fast", "here/zzz"), False
    )
    message = "NetworkAttachmentDefinition here/zzz does not exist; nothing is added for it"
    assert (found.problems, found.warnings) == (
        [],
        [Problem("NG462", f"{AT}[1]", "zzz", message, "create it before the pod")],
    )


def test_default_network_without_namespace() -> None:
    """Multus takes it from its own namespace, which nobody here knows for certain."""
    found = Findings()
    attachments = sriov.judge(read("", "main"), "here", POLICY, KNOWN, found)

    assert attachments.units == {"intel.com/sriov_m": 1}
    told = "a default network without a namespace is taken from Multus' own namespace, kube-system unless configured otherwise"
    expected = Problem("NG465", AT_DEFAULT, "main", told, "write kube-system/main")
    assert (found.problems, found.warnings) == ([], [expected])
    sriov.judge(read("", "zzz"), "here", POLICY, KNOWN, found)
    assert (found.problems, [warning.code for warning in found.warnings]) == ([], ["NG465", "NG465", "NG462"])


def test_unchecked() -> None:
    """Without a catalogue nothing is checked, and that is said once."""
    found = Findings()

    assert sriov.judge(read("a,b"), "here", POLICY, NOTHING_KNOWN, found) == NOTHING._replace(known=False)
    message = "the networks were not checked: no NetworkAttachmentDefinitions are configured"
    assert (found.problems, found.warnings) == ([], [Problem("NG461", AT, "", message)])


def test_bad_network() -> None:
    """A pod that uses a network that cannot work is refused once per network, with the network's problems."""
    found = Findings()
    attachments = sriov.judge(read("broken,broken,ruined"), "here", POLICY, KNOWN, found)

    assert attachments.units == {}
    assert found.problems == [
        Problem(
            "NG414",
            f"{AT}[0]",
            "broken",
            "NetworkAttachmentDefinition here/broken cannot work: spec.config.vlan: vlan 5000 is not a whole number from 0 (off) to 4094",
            "mend here/broken",
        ),
        Problem(
            "NG414",
            f"{AT}[2]",
            "ruined",
            "NetworkAttachmentDefinition here/ruined cannot work: spec.config.vlan: vlan -1 is not a whole number from 0 (off) to 4094; "
            "spec.config.vlanQoS: vlanQoS 9 is not a whole number from 0 to 7; "
            "spec.config.mac: 1 is not a unicast MAC address of six bytes other than zero; and 2 more",
            "mend here/ruined",
        ),
    ]


def test_kuryr_without_settings() -> None:
    """A network of Kuryr's needs Kuryr's mappings."""
    found = Findings()
    attachments = sriov.judge(read("kuryr"), "here", SriovPolicy(), KNOWN, found)

    assert attachments == Attachments({}, frozenset(), {}, ("here/kuryr",), True)
    assert [warning.code for warning in found.warnings] == ["NG481"]


def test_networks_of_different_nodes() -> None:
    """Two networks that work on different nodes cannot be in one pod."""
    found = Findings()
    sriov.judge(read("fast,e810"), "here", POLICY, KNOWN, found)

    message = 'network here/e810 works on nodes with nic="e810", another network of the pod on nodes with nic="cx6"'
    assert found.problems == [Problem("NG415", f"{AT}[1]", "e810", message, "use networks of one kind of node")]


@pytest.mark.parametrize(
    ("labels", "selected", "expected"),
    [
        pytest.param({}, {"a": "b"}, {}, id="none"),
        pytest.param({"rack": "", "nic": "cx6"}, {}, {"nic": "cx6", "rack": ""}, id="all"),
        pytest.param({"nic": "cx6"}, {"nic": "cx6", "a": "b"}, {}, id="there already"),
    ],
)
def test_node_labels(labels: dict[str, str], selected: dict[str, str], expected: dict[str, str]) -> None:
    """Only labels that the pod does not select yet are added, in order."""
    found = Findings()
    wanted = sriov.node_labels(NOTHING._replace(labels=labels), spec(nodeSelector=selected), found)

    assert list(wanted.items()) == list(expected.items())
    assert found.problems == []


def test_node_selector_conflict() -> None:
    """Another value of the pod's own is a problem, not overridden."""
    found = Findings()

    assert sriov.node_labels(NOTHING._replace(labels={"nic": "cx6"}), spec(nodeSelector={"nic": "e810"}), found) == {}
    message = 'the pod selects nodes with nic="e810", its networks work on nodes with nic="cx6"'
    assert found.problems == [
        Problem("NG415", "spec.nodeSelector[nic]", "e810", message, 'write "cx6", or leave the entry out')
    ]
