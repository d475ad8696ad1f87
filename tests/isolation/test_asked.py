"""All five kinds together."""

import pytest

from noisegate.isolation import asked
from noisegate.isolation.asked import LONGEST_REMEMBERED, Asked, Kind
from noisegate.isolation.problems import Findings

DISK = "blockio.kubernetes.io/resources"
NETWORK = "networkio.kubernetes.io/resources"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
RDT = "rdt.resources.beta.kubernetes.io/pod"


def read(annotations: dict[str, str]) -> tuple[Asked, list[str], list[str]]:
    """Return what annotations ask for, and the codes of problems and warnings."""
    found = Findings()
    result = asked.read(annotations, found)
    return result, [problem.code for problem in found.problems], [warning.code for warning in found.warnings]


def test_nothing() -> None:
    """Annotations that are not ours ask for nothing."""
    assert read({}) == (Asked(), [], [])
    assert read({"x": "y", "kubernetes.io/egress-bandwidth": "5M"}) == (Asked(), [], [])


def test_everything() -> None:
    """Each kind is read; the default network stands before the others."""
    result, problems, warnings = read(
        {
            DISK: '{"data": {"limits": {"rbps": "50Mi"}}}',
            NETWORK: '{"limits": {"egress": "50M"}}',
            RDT: "gold",
            NETWORKS: "a,b",
            DEFAULT_NETWORK: "kube-system/c",
        }
    )

    assert (problems, warnings, result.bad) == ([], [], frozenset())
    assert result.disk is not None
    assert result.disk.volumes[0].rbps.limit == 50 << 20
    assert result.network is not None
    assert result.network.egress.limit == 50_000_000
    assert result.rdt is not None
    assert result.rdt.pod is not None
    assert [selection.name for selection in result.networks] == ["c", "a", "b"]


def test_all_wrong() -> None:
    """Every kind is looked at; what could be read of a wrong one is there to be checked further."""
    result, problems, _ = read({DISK: "{", NETWORK: "{", RDT: "very gold", NETWORKS: "A", DEFAULT_NETWORK: "a,b"})

    assert (result.disk, result.network, [selection.name for selection in result.networks]) == (None, None, ["a", "b"])
    assert result.bad == {"disk", "network", "rdt", "sriov"}
    assert len(problems) == 5


def test_one_wrong() -> None:
    """One wrong kind leaves the others."""
    result, problems, _ = read({DISK: "{", NETWORK: '{"limits": {"egress": "50M"}}'})

    assert result.network is not None
    assert (result.bad, problems) == (frozenset[Kind]({"disk"}), ["NG001"])


def test_remembered() -> None:
    """The same text is told of each time, and means the same each time."""
    for text, codes in (('{"limit": {}}', ["NG003"]), ("[]", ["NG004"])):
        assert [read({NETWORK: text})[1] for _ in range(3)] == [codes] * 3
    assert [read({NETWORK: "{}"})[2] for _ in range(3)] == [["NG051"]] * 3


@pytest.mark.parametrize("blanks", [0, LONGEST_REMEMBERED, 3 * LONGEST_REMEMBERED])
def test_long_text(blanks: int) -> None:
    """A long text is read like a short one."""
    result, problems, _ = read({NETWORK: " " * blanks + '{"limits": {"egress": "50M"}}'})

    assert (problems, result.network is None) == ([], False)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (DISK, "disk"),
        (NETWORK, "network"),
        (RDT, "rdt"),
        ("rdt.resources.beta.kubernetes.io/container.a", "rdt"),
        ("noisegate.io/rdt-class", "rdt"),
        ("noisegate.io/rdt-class.a", "rdt"),
        (NETWORKS, "sriov"),
        (DEFAULT_NETWORK, "sriov"),
        ("noisegate.io/devices-container", "sriov"),
        ("noisegate.io/profile", None),
        ("x", None),
    ],
)
def test_kind_of(key: str, kind: str | None) -> None:
    """Each key is of one kind."""
    assert asked.kind_of(key) == kind


@pytest.mark.parametrize(
    ("key", "asks"),
    [
        (DISK, True),
        (NETWORK, True),
        (NETWORKS, True),
        (DEFAULT_NETWORK, True),
        (RDT, True),
        ("noisegate.io/anything", True),
        ("cmk.intel.com/mutate", False),
        ("kubectl.kubernetes.io/default-container", False),
        ("x", False),
    ],
)
def test_asks(key: str, asks: bool) -> None:
    """Only what asks is read at all."""
    assert asked.asks({key: ""}) is asks
    assert not asked.asks({})
