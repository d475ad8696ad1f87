"""/etc/podnetinfo."""

from typing import Any

import msgspec
import pytest

from noisegate.isolation.podnetinfo import PodNetInfo, mount, podnetinfo
from noisegate.isolation.problems import Findings, Problem
from noisegate.webhook.objects import PodSpec

LABELS = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
ANNOTATIONS = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
PAGES = {"limits": {"hugepages-1Gi": "2Gi"}, "requests": {"hugepages-1Gi": "2Gi"}}
OURS = {"name": "podnetinfo", "readOnly": True, "mountPath": "/etc/podnetinfo"}


def pod(*containers: dict[str, Any], volumes: tuple[dict[str, Any], ...] = ()) -> PodSpec:
    """Return a decoded pod spec."""
    return msgspec.convert({"containers": containers, "volumes": volumes}, PodSpec)


def volume(*items: dict[str, Any]) -> dict[str, Any]:
    """Return the volume with these items."""
    return {"name": "podnetinfo", "downwardAPI": {"items": list(items)}}


def pages(side: str, container: str, size: str = "1Gi") -> dict[str, Any]:
    """Return the item for one size of huge pages."""
    return {
        "path": f"hugepages_{size.replace('i', '')}_{side}_{container}",
        "resourceFieldRef": {"containerName": container, "resource": f"{side}s.hugepages-{size}", "divisor": "1Mi"},
    }


@pytest.mark.parametrize(
    ("spec", "labels", "annotations", "expected"),
    [
        pytest.param(
            pod({"name": "a"}),
            True,
            True,
            PodNetInfo(volume(LABELS, ANNOTATIONS), (0,), ()),
            id="labels and annotations",
        ),
        pytest.param(pod({"name": "a"}), False, True, PodNetInfo(volume(ANNOTATIONS), (0,), ()), id="no labels"),
        pytest.param(pod({"name": "a"}), True, False, PodNetInfo(volume(LABELS), (0,), ()), id="no annotations"),
        pytest.param(
            pod({"name": "a"}, {"name": "b", "resources": PAGES}),
            False,
            True,
            PodNetInfo(volume(ANNOTATIONS, pages("request", "b"), pages("limit", "b")), (0, 1), ((1, "b"),)),
            id="huge pages",
        ),
        pytest.param(
            pod({"name": "a", "resources": {"limits": {"hugepages-1Gi": 1, "hugepages-2Mi": "4Mi"}}}),
            False,
            True,
            PodNetInfo(
                volume(
                    ANNOTATIONS,
                    pages("request", "a"),
                    pages("request", "a", "2Mi"),
                    pages("limit", "a"),
                    pages("limit", "a", "2Mi"),
                ),
                (0,),
                ((0, "a"),),
            ),
            id="the request that Kubernetes fills in",
        ),
        pytest.param(
            pod(
                {
                    "name": "a",
                    "resources": {
                        "limits": {"hugepages-1Gi": "0", "hugepages-": "1", "cpu": "1", "hugepages-2Mi": "x"}
                    },
                }
            ),
            False,
            True,
            PodNetInfo(
                volume(ANNOTATIONS, pages("request", "a", "2Mi"), pages("limit", "a", "2Mi")), (0,), ((0, "a"),)
            ),
            id="zero, and what is not huge pages",
        ),
        pytest.param(
            pod(
                {
                    "name": "a",
                    "resources": PAGES,
                    "env": [{"name": "X", "value": "y"}, {"name": "CONTAINER_NAME", "value": "a"}],
                }
            ),
            False,
            True,
            PodNetInfo(volume(ANNOTATIONS, pages("request", "a"), pages("limit", "a")), (0,), ()),
            id="the name is known",
        ),
        pytest.param(
            pod(
                {"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}, OURS]}, volumes=(volume(ANNOTATIONS),)
            ),
            True,
            True,
            PodNetInfo(None, (), ()),
            id="all there",
        ),
        pytest.param(
            pod({"name": "a", "volumeMounts": [OURS]}, {"name": "b"}, volumes=({"name": "x"}, volume())),
            True,
            True,
            PodNetInfo(None, (1,), ()),
            id="a container was added",
        ),
        pytest.param(
            pod(
                {"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/etc/podnetinfo/"}]},
                volumes=({"name": "x", "emptyDir": {}},),
            ),
            True,
            True,
            PodNetInfo(None, (), ()),
            id="another volume at the path is left alone",
        ),
        pytest.param(
            pod(
                {"name": "a", "volumeMounts": [{"name": "podnetinfo", "mountPath": "/etc/podnetinfo"}]},
                volumes=({"name": "podnetinfo"},),
            ),
            True,
            True,
            PodNetInfo(None, (), ()),
            id="nothing would mount ours",
        ),
    ],
)
def test_needed(spec: PodSpec, labels: bool, annotations: bool, expected: PodNetInfo) -> None:
    """What is not there yet is added."""
    found = Findings()

    assert podnetinfo(labels, annotations, spec, found) == expected
    assert (found.problems, found.warnings) == ([], [])


def test_mount() -> None:
    """The mount is read-only."""
    assert mount() == OURS


@pytest.mark.parametrize(
    ("taken", "kind"),
    [({"name": "podnetinfo", "hostPath": {"path": "/x"}}, "hostPath"), ({"name": "podnetinfo"}, "emptyDir")],
    ids=["host path", "no source"],
)
def test_volume_taken(taken: dict[str, Any], kind: str) -> None:
    """A volume of the same name but another source is a problem."""
    found = Findings()
    podnetinfo(True, True, pod({"name": "a"}, volumes=({"name": "x", "emptyDir": {}}, taken)), found)

    message = (
        f'the volume "podnetinfo" is of type {kind}; pods with SR-IOV devices get a downwardAPI volume of that name'
    )
    assert found.problems == [
        Problem("NG441", "spec.volumes[1]", "podnetinfo", message, "give the volume another name")
    ]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        pytest.param({"value": "web"}, "web", 'is "web"', id="value"),
        pytest.param({}, "", 'is ""', id="empty"),
        pytest.param(
            {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            "",
            "comes from a valueFrom",
            id="from elsewhere",
        ),
    ],
)
def test_env_kept(variable: dict[str, Any], value: str, told: str) -> None:
    """A name of the user's own is kept, with a warning."""
    found = Findings()
    spec = pod({"name": "a", "resources": PAGES, "env": [{"name": "CONTAINER_NAME"} | variable]})

    assert podnetinfo(True, True, spec, found).env == ()
    message = f'CONTAINER_NAME {told} and is kept; the huge page files carry the container\'s name, "a"'
    assert found.warnings == [Problem("NG491", "spec.containers[0].env[0]", value, message, "leave the variable out")]
    assert found.problems == []
