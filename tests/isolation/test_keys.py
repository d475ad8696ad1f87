"""The names a pod speaks to us with."""

import pytest

from noisegate.isolation import keys


@pytest.mark.parametrize(
    "key",
    [
        "blockio.kubernetes.io/resources",
        "networkio.kubernetes.io/resources",
        "rdt.resources.beta.kubernetes.io/pod",
        "rdt.resources.beta.kubernetes.io/container.app",
        "k8s.v1.cni.cncf.io/networks",
        "v1.multus-cni.io/default-network",
        "cmk.intel.com/mutate",
        "noisegate.io/rdt-class",
        "noisegate.io/rdt-class.app",
        "noisegate.io/devices-container",
        "noisegate.io/profile",
        "noisegate.io/volume-paths",
        "noisegate.io/whatever",
        "required-plugins.noderesource.dev",
        "required-plugins.noderesource.dev/container.app",
        "tolerate-missing-nri-plugins.noderesource.dev",
        "tolerate-missing-nri-plugins.noderesource.dev/pod",
    ],
)
def test_ours(key: str) -> None:
    """A change of one of these on a pod is judged."""
    assert keys.is_ours(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "kubernetes.io/ingress-bandwidth",
        "kubernetes.io/egress-bandwidth",
        "kubectl.kubernetes.io/default-container",
        "cmk.intel.com/resources-injected",
        "k8s.v1.cni.cncf.io/network-status",
        "k8s.v1.cni.cncf.io/networks-status",
        "blockio.kubernetes.io/resource",
        "rdt.resources.beta.kubernetes.io/podx",
        "noisegate.iox/rdt-class",
        "example.com/noisegate.io/x",
    ],
)
def test_not_ours(key: str) -> None:
    """What others write and read is theirs, however alike."""
    assert not keys.is_ours(key)


@pytest.mark.parametrize(
    ("key", "unknown"),
    [
        ("noisegate.io/rdt-clas", True),
        ("noisegate.io/rdt-classes", True),
        ("noisegate.io/enforces-disk", True),
        ("noisegate.io/", True),
        ("noisegate.io/rdt-class", False),
        ("noisegate.io/rdt-class.app", False),
        ("noisegate.io/devices-container", False),
        ("noisegate.io/profile", False),
        ("noisegate.io/volume-paths", False),
        ("example.com/rdt-clas", False),
    ],
)
def test_unknown(key: str, unknown: bool) -> None:
    """A key under our prefix that means nothing is unknown."""
    assert keys.is_unknown(key) is unknown
