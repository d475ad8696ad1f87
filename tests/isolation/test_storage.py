"""What a pod's volumes are made of."""

from functools import partial
from typing import Any

import msgspec
import pytest

from noisegate.isolation import storage
from noisegate.isolation.catalogue import NOTHING_KNOWN, Catalogue, Claim, StorageClass
from noisegate.isolation.problems import Findings, Problem, in_annotation
from noisegate.webhook.objects import PodSpec

PLACE = partial(in_annotation, "k")
AT = "metadata.annotations[k]"
ALLOWED = "allowed: emptyDir (on disk), persistentVolumeClaim and ephemeral volumes"


def claim(name: str = "data", claim_name: Any = "claim") -> dict[str, Any]:
    """Return a volume that comes from a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}


def ephemeral(name: str = "data", **spec: Any) -> dict[str, Any]:
    """Return a volume that makes its own claim."""
    return {"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}


def check(spec: dict[str, Any], *names: str, templates: tuple[str, ...] = ()) -> Findings:
    """Return what is found when these volumes of a pod ask."""
    found = Findings()
    storage.check_volumes(names, msgspec.convert(spec, PodSpec), templates, PLACE, found)
    return found


def mounted(*volumes: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a pod whose one container mounts all these volumes."""
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes if "name" in volume]
    return {"volumes": list(volumes), "containers": [{"name": "app", "volumeMounts": mounts}]}


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param({"name": "data", "emptyDir": {}}, id="emptyDir"),
        pytest.param({"name": "data", "emptyDir": {"sizeLimit": "1Gi", "medium": ""}}, id="emptyDir on disk"),
        pytest.param({"name": "data", "emptyDir": None}, id="null is absent"),
        pytest.param({"name": "data"}, id="the API server makes it an emptyDir"),
        pytest.param({"emptyDir": "x", "name": "data"}, id="not even an object"),
        pytest.param(claim(), id="claim"),
        pytest.param(ephemeral(), id="ephemeral"),
    ],
)
def test_volumes_that_can_be_limited(volume: dict[str, Any]) -> None:
    """Volumes that can have a disk and are mounted are passed without a word."""
    found = check(mounted(volume), "data")
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"emptyDir": {"medium": "Memory"}}, "emptyDir with medium Memory"),
        ({"emptyDir": {"medium": "HugePages"}}, "emptyDir with medium HugePages"),
        ({"emptyDir": {"medium": "HugePages-2Mi"}}, "emptyDir with medium HugePages-2Mi"),
        ({"configMap": {"name": "x"}}, "configMap"),
        ({"hostPath": {"path": "/x"}}, "hostPath"),
        ({"nfs": {"server": "x", "path": "/"}}, "nfs"),
        ({"csi": {"driver": "x"}}, "csi"),
    ],
)
def test_volumes_that_cannot_be_limited(source: dict[str, Any], kind: str) -> None:
    """Other volumes are told by their type, with those that are allowed."""
    told = f"volume data ({kind}) cannot be limited; {ALLOWED}"
    found = check(mounted({"name": "data", **source}), "data")
    assert found.problems == [Problem("NG106", f"{AT}.data", kind, told, "leave the volume out of the annotation")]
    assert found.warnings == []


def test_unknown_volume() -> None:
    """A volume that the pod does not have is told with those it has and the nearest of them."""
    found = check(mounted({"name": "volume1"}, {"name": "cache"}, {}), "vol1", "x")
    told = "the pod has no volume vol1; it has volume1, cache"
    assert found.problems == [
        Problem("NG105", f"{AT}.vol1", "vol1", told, "write volume1"),
        Problem("NG105", f"{AT}.x", "x", "the pod has no volume x; it has volume1, cache"),
    ]


def test_unknown_volume_among_none_and_many() -> None:
    """A pod without volumes is told as such, and of many volumes the first ten."""
    none = check({}, "data").problems
    assert none == [Problem("NG105", f"{AT}.data", "data", "the pod has no volume data; it has none")]
    many = check({"volumes": [{"name": f"v{n}"} for n in range(12)]}, "data").problems
    told = "the pod has no volume data; it has v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, ..."
    assert many == [Problem("NG105", f"{AT}.data", "data", told)]


def test_no_suggestions_without_end() -> None:
    """Once many problems are found, none of them is compared with every volume any more."""
    names = [f"data{n}" for n in range(52)]
    hints = [problem.hint for problem in check({"volumes": [{"name": "data"}]}, *names).problems]
    assert hints == ["write data"] * 50 + ["", ""]


@pytest.mark.parametrize(
    "containers",
    [
        pytest.param({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": "M"}]}, id="second container"),
        pytest.param({"initContainers": [{"name": "a", "volumeMounts": "M"}]}, id="init container"),
        pytest.param({"containers": [{"name": "a", "volumeDevices": "D"}]}, id="block device"),
    ],
)
def test_mounted(containers: dict[str, Any]) -> None:
    """A volume that any container mounts, even as a device, is in use."""
    mounts = {
        "M": [{"name": "other", "mountPath": "/o"}, {"name": "data", "mountPath": "/d"}],
        "D": [{"name": "other", "devicePath": "/dev/o"}, {"name": "data", "devicePath": "/dev/d"}],
    }
    filled = {
        kind: [{key: mounts.get(value, value) for key, value in container.items()} for container in group]
        for kind, group in containers.items()
    }
    assert check({**filled, "volumes": [{"name": "data"}]}, "data").warnings == []


def test_mounted_by_nobody() -> None:
    """A volume that no container mounts is warned of."""
    found = check({"volumes": [{"name": "data"}], "containers": [{"name": "app"}]}, "data")
    told = "no container mounts volume data: there is nothing to limit"
    assert (found.problems, found.warnings) == ([], [Problem("NG151", f"{AT}.data", "data", told)])


def test_claim_templates() -> None:
    """The volumeClaimTemplates of a StatefulSet are volumes of its pods, and stand above a volume of the same name."""
    spec = mounted({"name": "data", "emptyDir": {"medium": "Memory"}})
    found = check(spec, "data", templates=("data",))
    assert (found.problems, found.warnings) == ([], [])


def claims_of(catalogue: Catalogue, *volumes: dict[str, Any], names: tuple[str, ...] = ("data",)) -> list[Problem]:
    """Return the warnings about volumes in namespace `ns`."""
    found = Findings()
    storage.check_claims(frozenset(names), volumes, "ns", catalogue, PLACE, found)
    assert found.problems == []
    return found.warnings


CLASSES = {
    "fast": StorageClass("ebs.csi.aws.com"),
    "share": StorageClass("nfs.csi.k8s.io", default=True),
    "zone": StorageClass("pd.csi.storage.gke.io"),
}
KNOWN = Catalogue(
    claims={
        "ns/fast": Claim("fast"),
        "ns/share": Claim("share"),
        "ns/plain": Claim(""),
        "ns/manual": Claim("manual"),
        "other/claim": Claim("fast"),
    },
    storage_classes=CLASSES,
)
REMOTE = (
    "volume data (StorageClass share, nfs.csi.k8s.io) has no block device on the node; the container will not start"
)
USE_LOCAL = "leave the volume out or use a class with local or block storage"
ON_SHARE = Problem("NG153", f"{AT}.data", "share", REMOTE, USE_LOCAL)


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param(claim(claim_name="fast"), [], id="local claim"),
        pytest.param(claim(claim_name="share"), [ON_SHARE], id="claim on a network file system"),
        pytest.param(claim(claim_name="plain"), [ON_SHARE], id="claim of the default class"),
        pytest.param(
            claim(claim_name="manual"),
            [
                Problem(
                    "NG154",
                    f"{AT}.data",
                    "manual",
                    'whether data can have a disk is unchecked: its StorageClass "manual" does not exist',
                )
            ],
            id="class that does not exist",
        ),
        pytest.param(
            claim(claim_name="fats"),
            [
                Problem(
                    "NG152",
                    f"{AT}.data",
                    "fats",
                    'PersistentVolumeClaim "fats" of volume data does not exist (yet)',
                    "or is fast meant",
                )
            ],
            id="claim that does not exist",
        ),
        pytest.param(
            claim(claim_name="zzzzzzzz"),
            [
                Problem(
                    "NG152",
                    f"{AT}.data",
                    "zzzzzzzz",
                    'PersistentVolumeClaim "zzzzzzzz" of volume data does not exist (yet)',
                )
            ],
            id="claim that resembles none",
        ),
        pytest.param(ephemeral(storageClassName="fast"), [], id="ephemeral"),
        pytest.param(ephemeral(storageClassName="share"), [ON_SHARE], id="ephemeral on a network file system"),
        pytest.param(ephemeral(), [ON_SHARE], id="ephemeral of the default class"),
        pytest.param({"name": "data", "ephemeral": {}}, [ON_SHARE], id="ephemeral without a template"),
        pytest.param({"name": "data", "emptyDir": {}}, [], id="emptyDir"),
        pytest.param(claim("other", "fats"), [], id="volume that does not ask"),
        pytest.param({}, [], id="volume without a name"),
    ],
)
def test_claims(volume: dict[str, Any], expected: list[Problem]) -> None:
    """Claims that do not exist and classes without a local disk are warned of, and what is sound is passed."""
    assert claims_of(KNOWN, volume) == expected


def test_no_suggestion_among_thousands() -> None:
    """A missing claim is not compared with all claims of a namespace that holds very many."""
    catalogue = KNOWN._replace(claims={f"ns/claim{n}": Claim("fast") for n in range(501)})
    told = 'PersistentVolumeClaim "claim" of volume data does not exist (yet)'
    assert claims_of(catalogue, claim()) == [Problem("NG152", f"{AT}.data", "claim", told)]


def test_no_default_class() -> None:
    """Where no class is the default, a claim without one says nothing about its disk."""
    catalogue = KNOWN._replace(storage_classes={"fast": CLASSES["fast"]})
    assert claims_of(catalogue, claim(claim_name="plain")) == []


@pytest.mark.parametrize(
    ("catalogue", "names"),
    [
        pytest.param(NOTHING_KNOWN, "data, scratch", id="nothing known"),
        pytest.param(KNOWN._replace(storage_classes=None), "data, scratch", id="no classes known"),
        pytest.param(KNOWN._replace(claims=None), "data", id="no claims known"),
    ],
)
def test_unchecked(catalogue: Catalogue, names: str) -> None:
    """What is not known is told in one warning for all volumes of a pod."""
    volumes = (claim(claim_name="fast"), ephemeral("scratch", storageClassName="fast"))
    told = f"whether {names} can have a disk is unchecked: the cluster's claims or StorageClasses are not known here"
    expected = [Problem("NG154", f"{AT}.data", names, told)]
    assert claims_of(catalogue, *volumes, names=("data", "scratch")) == expected


def test_many_unchecked() -> None:
    """Of many volumes the first five are named."""
    names = tuple(f"v{n}" for n in range(7))
    (warning,) = claims_of(NOTHING_KNOWN, *(claim(name) for name in names), names=names)
    assert warning.value == "v0, v1, v2, v3, v4, ..."


@pytest.mark.parametrize(
    ("provisioner", "expected"),
    [
        ("nfs.csi.k8s.io", True),
        ("cephfs.csi.ceph.com", True),
        ("rook-ceph.cephfs.csi.ceph.com", True),
        ("rbd.csi.ceph.com", False),
        ("efs.csi.aws.com", True),
        ("fsx.csi.aws.com", True),
        ("s3.csi.aws.com", True),
        ("ebs.csi.aws.com", False),
        ("file.csi.azure.com", True),
        ("kubernetes.io/azure-file", True),
        ("disk.csi.azure.com", False),
        ("smb.csi.k8s.io", True),
        ("k8s-sigs.io/nfs-subdir-external-provisioner", True),
        ("filestore.csi.storage.gke.io", True),
        ("gcsfuse.csi.storage.gke.io", True),
        ("pd.csi.storage.gke.io", False),
        ("rancher.io/local-path", False),
        ("topolvm.io", False),
        ("", False),
    ],
)
def test_remote_drivers(provisioner: str, expected: bool) -> None:
    """Drivers of network and FUSE file systems are known by the parts of their names."""
    assert storage.is_remote(provisioner) is expected
