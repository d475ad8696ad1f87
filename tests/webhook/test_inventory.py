"""What the cluster has, out of manifests."""

import pytest

from noisegate.isolation.catalogue import NOTHING_KNOWN, Catalogue, Claim, Network, RdtClass, StorageClass
from noisegate.service.faults import ConfigError
from noisegate.service.manifests import read
from noisegate.webhook.inventory import Inventory, build, merge

NETWORKS = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: fast
  annotations: {k8s.v1.cni.cncf.io/resourceName: intel.com/vf}
spec: {config: '{"type": "sriov"}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: kuryr, namespace: net}
"""
STORAGE = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {storageClassName: fast}}
- {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: other}, spec: {}}
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {name: fast}
  provisioner: ebs.csi.aws.com
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {name: slow, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
  provisioner: nfs.csi.k8s.io
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {name: old, annotations: {storageclass.beta.kubernetes.io/is-default-class: "true"}}
  provisioner: x
- {apiVersion: v1, kind: Pod, metadata: {name: p}}
- {apiVersion: example.org/v1, kind: StorageClass, metadata: {name: not-ours}}
"""
FAST = Network({"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"}, '{"type": "sriov"}')


def test_objects_become_entries() -> None:
    """Networks and claims are keyed by namespace and name, classes by name; other kinds are passed by."""
    assert build([*read(NETWORKS, "n"), *read(STORAGE, "s")]) == Inventory(
        Catalogue(
            networks={"default/fast": FAST, "net/kuryr": Network({}, "")},
            claims={"default/data": Claim("fast"), "other/data": Claim("")},
            storage_classes={
                "fast": StorageClass("ebs.csi.aws.com"),
                "slow": StorageClass("nfs.csi.k8s.io", default=True),
                "old": StorageClass("x", default=True),
            },
        )
    )


def test_a_kind_is_known_once_an_object_of_it_is_seen() -> None:
    """Networks alone leave claims unknown, unless the files are said to be complete."""
    documents = read(NETWORKS, "n")
    assert build(documents, namespace="ns").catalogue == Catalogue({"ns/fast": FAST, "net/kuryr": Network({}, "")})
    assert build([], complete=("claims", "storageClasses")).catalogue == Catalogue(None, {}, {})
    assert build([]).catalogue == NOTHING_KNOWN


def test_of_two_objects_of_one_name_the_later_one_counts() -> None:
    """As with kubectl apply; it is said where they differ."""
    claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c}\nspec: {storageClassName: %s}\n"
    documents = [*read(claim % "a", "one"), *read(claim % "a", "two"), *read("\n" + claim % "b", "three")]
    found = build(documents)
    assert found.catalogue.claims == {"default/c": Claim("b")}
    assert list(map(str, found.notes)) == [
        (
            "three:2: PersistentVolumeClaim default/c stands in two:1 too and says something else "
            "(this later one counts; remove one of them)"
        )
    ]


def test_everything_that_is_wrong_is_told() -> None:
    """Names that are missing and fields of wrong types, over all objects."""
    text = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  generateName: x
  annotations: []
spec: {config: {type: sriov}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: s
  annotations:
    a/b: true
provisioner: 3
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: []
"""
    with pytest.raises(ConfigError) as error:
        build(read(text, "f.yaml"))
    assert str(error.value).splitlines() == [
        "f.yaml:3: metadata.name: a NetworkAttachmentDefinition needs a name",
        "f.yaml:5: metadata.annotations: []: a mapping (lines of key: value) is needed",
        'f.yaml:6: spec.config: {"type": "sriov"}: a text is needed',
        "f.yaml:13: metadata.annotations[a/b]: true: a text is needed (put the value in quotation marks)",
        "f.yaml:14: provisioner: 3: a text is needed",
        "f.yaml:19: spec: []: a mapping (lines of key: value) is needed",
    ]


def test_catalogues_are_joined_kind_by_kind() -> None:
    """A kind is unknown only where no catalogue knows it; of two entries of one name the later one counts."""
    first = Catalogue({"a/x": FAST}, None, {"s": StorageClass("one")})
    second = Catalogue(None, {}, {"s": StorageClass("two"), "t": StorageClass("t")}, {"gold": RdtClass()})
    assert merge([first, second]) == Catalogue(
        {"a/x": FAST}, {}, {"s": StorageClass("two"), "t": StorageClass("t")}, {"gold": RdtClass()}
    )
    assert merge([]) == NOTHING_KNOWN
