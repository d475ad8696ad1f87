"""The RDT class of each container."""

import pytest

from noisegate.isolation import rdt
from noisegate.isolation.catalogue import NOTHING_KNOWN, Catalogue, RdtClass
from noisegate.isolation.problems import Findings, Problem
from noisegate.isolation.rdt import Choice, RdtRequest

RUNTIME = "rdt.resources.beta.kubernetes.io/"
OWN = "noisegate.io/rdt-class"
KNOWN = Catalogue(
    rdt_classes={
        "gold": RdtClass(),
        "silver": RdtClass(),
        "vault": RdtClass(deny_pod_annotation=True, deny_container_annotation=True),
    }
)


def test_nothing_asked() -> None:
    """Annotations of others ask for no class, even where they begin like ours."""
    found = Findings()

    assert (
        rdt.read({"example.com/x": "gold", "noisegate.io/rdt-classes": "gold", "noisegate.io/profile": "x"}, found)
        is None
    )
    assert found.problems == []


@pytest.mark.parametrize(
    ("annotations", "container", "expected"),
    [
        pytest.param({RUNTIME + "pod": "gold"}, "app", Choice("gold", RUNTIME + "pod", False), id="pod"),
        pytest.param(
            {RUNTIME + "pod": "gold", RUNTIME + "container.app": "silver"},
            "app",
            Choice("silver", RUNTIME + "container.app", False),
            id="container wins",
        ),
        pytest.param({RUNTIME + "container.app": "silver"}, "side", None, id="another container"),
        pytest.param({OWN: "gold"}, "app", Choice("gold", OWN, True), id="own key"),
        pytest.param(
            {OWN: "gold", OWN + ".app": "silver"}, "app", Choice("silver", OWN + ".app", True), id="own container wins"
        ),
        pytest.param({OWN + ".my.app": "silver"}, "my.app", Choice("silver", OWN + ".my.app", True), id="dot in name"),
        pytest.param({OWN: "system/default"}, "app", Choice("system/default", OWN, True), id="root class"),
    ],
)
def test_class_of(annotations: dict[str, str], container: str, expected: Choice | None) -> None:
    """The most specific key wins."""
    found = Findings()
    request = rdt.read(annotations, found)

    assert request is not None
    assert request.class_of(container) == expected
    assert found.problems == []


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param(
            {OWN: ""},
            Problem(
                "NG303",
                f"metadata.annotations[{OWN}]",
                "",
                "an RDT class name is empty; allowed: 1 to 255 characters without blanks and slashes, or system/default for the root group",
                "leave the annotation out, or write system/default",
            ),
            id="empty",
        ),
        pytest.param(
            {OWN: "a b"},
            Problem(
                "NG303",
                f"metadata.annotations[{OWN}]",
                "a b",
                '"a b" is no name of an RDT class; allowed: 1 to 255 characters without blanks and slashes, or system/default for the root group',
            ),
            id="blank",
        ),
        pytest.param(
            {OWN: ".."},
            Problem(
                "NG303",
                f"metadata.annotations[{OWN}]",
                "..",
                '".." is no name of an RDT class; allowed: 1 to 255 characters without blanks and slashes, or system/default for the root group',
            ),
            id="parent directory",
        ),
        pytest.param(
            {OWN: "mon_groups"},
            Problem(
                "NG303",
                f"metadata.annotations[{OWN}]",
                "mon_groups",
                '"mon_groups" is no name of an RDT class; allowed: 1 to 255 characters without blanks and slashes, or system/default for the root group',
            ),
            id="the kernel's own entry",
        ),
        pytest.param(
            {OWN: "gold", RUNTIME + "pod": "gold"},
            Problem(
                "NG302",
                f"metadata.annotations[{OWN}]",
                "gold",
                f"the container runtime's key {RUNTIME}pod chooses a class for the same container",
                f"keep one of {OWN} and {RUNTIME}pod",
            ),
            id="both on the pod",
        ),
        pytest.param(
            {OWN + ".app": "gold", RUNTIME + "container.app": "gold"},
            Problem(
                "NG302",
                f"metadata.annotations[{OWN}.app]",
                "gold",
                f"the container runtime's key {RUNTIME}container.app chooses a class for the same container",
                f"keep one of {OWN}.app and {RUNTIME}container.app",
            ),
            id="both on a container",
        ),
        pytest.param(
            {OWN + ".app": "gold", RUNTIME + "pod": "silver"},
            Problem(
                "NG302",
                f"metadata.annotations[{OWN}.app]",
                "gold",
                f"the container runtime's key {RUNTIME}pod chooses a class for the same container",
                f"keep one of {OWN}.app and {RUNTIME}pod",
            ),
            id="pod and container",
        ),
    ],
)
def test_unreadable(annotations: dict[str, str], expected: Problem) -> None:
    """A key that cannot be meant is told, whatever the pod looks like."""
    found = Findings()
    rdt.read(annotations, found)

    assert found.problems == [expected]


def test_unknown_container() -> None:
    """A key of a container that does not exist is told, with the one that was probably meant."""
    found = Findings()
    rdt.fit(RdtRequest(None, {"ap": Choice("gold", OWN + ".ap", True)}), ["app", "side"], found)

    assert found.problems == [
        Problem(
            "NG305",
            f"metadata.annotations[{OWN}.ap]",
            "ap",
            'the pod has no container "ap"; it has app, side',
            f"write {OWN}.app",
        )
    ]


def test_fitting_containers() -> None:
    """Keys of containers that exist fit; a pod's key fits every pod."""
    found = Findings()
    rdt.fit(RdtRequest(None, {"app": Choice("gold", OWN + ".app", True)}), ["app"], found)
    rdt.fit(RdtRequest(Choice("gold", OWN, True), {}), [], found)

    assert found.problems == []


def test_unknown_class() -> None:
    """A class that is in no class file is told, with the known ones."""
    found = Findings()
    rdt.judge(RdtRequest(Choice("gould", OWN, True), {}), KNOWN, found)

    assert found.problems == [
        Problem(
            "NG301",
            f"metadata.annotations[{OWN}]",
            "gould",
            'unknown RDT class "gould"; allowed: gold, silver',
            "write gold",
        )
    ]


@pytest.mark.parametrize(
    ("request_", "setting", "key"),
    [
        pytest.param(RdtRequest(Choice("vault", OWN, True), {}), "denyPodAnnotation", OWN, id="pod"),
        pytest.param(
            RdtRequest(None, {"a": Choice("vault", OWN + ".a", True)}),
            "denyContainerAnnotation",
            OWN + ".a",
            id="container",
        ),
    ],
)
def test_denied_class(request_: RdtRequest, setting: str, key: str) -> None:
    """A class that the class file keeps from annotations is refused."""
    found = Findings()
    rdt.judge(request_, KNOWN, found)

    assert found.problems == [
        Problem(
            "NG304",
            f"metadata.annotations[{key}]",
            "vault",
            f'RDT class "vault" may not be chosen here, the class file sets kubernetes.{setting}; allowed: gold, silver',
        )
    ]


def test_known_and_root_class() -> None:
    """Classes of the class file and the root group are allowed."""
    found = Findings()
    rdt.judge(RdtRequest(Choice("gold", OWN, True), {"a": Choice("system/default", OWN + ".a", True)}), KNOWN, found)

    assert (found.problems, found.warnings) == ([], [])


def test_no_class_file() -> None:
    """Without a class file nothing is refused, and one warning says that nothing was checked."""
    found = Findings()
    rdt.judge(RdtRequest(Choice("x", OWN, True), {"a": Choice("y", OWN + ".a", True)}), NOTHING_KNOWN, found)

    assert found.problems == []
    assert [warning.code for warning in found.warnings] == ["NG351"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RdtRequest(Choice("gold", OWN, True), {}), True),
        (RdtRequest(None, {"a": Choice("gold", OWN + ".a", True)}), True),
        (RdtRequest(Choice("gold", RUNTIME + "pod", False), {}), False),
    ],
)
def test_asks_enforcer(request_: RdtRequest, expected: bool) -> None:
    """Only our own keys need the node enforcer."""
    assert request_.asks_enforcer() is expected
