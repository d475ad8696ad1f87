"""Every annotation, label and resource name a pod speaks to us with, and which of them are ours.

*Ours* are the keys whose change on a pod is judged (pod-api.md 7): the five kinds' own keys, everything under
`noisegate.io/`, and the runtime's `required-plugins.noderesource.dev`.
"""

from typing import Final

DISK: Final = "blockio.kubernetes.io/resources"
"""JSON, bytes per second by volume: `{"data": {"limits": {"rbps": "50Mi/4k"}}}`."""
NETWORK: Final = "networkio.kubernetes.io/resources"
"""JSON, bits per second: `{"limits": {"ingress": "50M"}}`."""

RDT_RUNTIME: Final = "rdt.resources.beta.kubernetes.io/"
"""Begins the container runtime's own keys for RDT classes."""
RDT_RUNTIME_POD: Final = RDT_RUNTIME + "pod"
"""RDT class of all containers, applied by the container runtime."""
RDT_RUNTIME_CONTAINER: Final = RDT_RUNTIME + "container."
"""Prefix, followed by a container's name: RDT class of that container, applied by the container runtime."""
RDT_OWN_POD: Final = "noisegate.io/rdt-class"
"""RDT class of all containers, applied by the node enforcer."""
RDT_OWN_CONTAINER: Final = "noisegate.io/rdt-class."
"""Prefix, followed by a container's name: RDT class of that container, applied by the node enforcer."""

NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"
"""Secondary networks: JSON list or comma list of network selection elements."""
DEFAULT_NETWORK: Final = "v1.multus-cni.io/default-network"
"""The network that replaces the cluster's default: one element."""
DEVICES_CONTAINER: Final = "noisegate.io/devices-container"
"""Name of the container that gets the devices of the pod's attachments."""
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
"""kubectl's own; names the container that gets the devices where ours is absent."""

CORES: Final = "cmk.intel.com/exclusive-cores"
"""Extended resource: one unit is one physical core with all its hardware threads."""
CORES_NON_ISOLCPUS: Final = "cmk.intel.com/exclusive-non-isolcpus-cores"
"""The same, from cores that the kernel does not isolate."""
CORE_RESOURCES: Final = (CORES, CORES_NON_ISOLCPUS)
CPU_MUTATE: Final = "cmk.intel.com/mutate"
"""`"true"`: mutate without a request; `"false"`: see `CpuPolicy.opt_out`."""
CPU_INJECTED: Final = "cmk.intel.com/resources-injected"
"""Set by the shipped rules on a pod they mutated."""
CPU_ENV: Final = "CMK_NUM_CORES"
"""Environment variable: number of exclusive cores of the container."""

PROFILE: Final = "noisegate.io/profile"
"""Name of a profile in mutations.yaml, such as `sriov-dpdk`."""
VOLUME_PATHS: Final = "noisegate.io/volume-paths"
"""Injected: JSON, volume -> container -> mountPath or devicePath, for the node enforcer."""

REQUIRED_PLUGINS: Final = "required-plugins.noderesource.dev"
"""NRI's default validator refuses the pod's containers while a plugin in this JSON list is absent."""
TOLERATE_MISSING_PLUGINS: Final = "tolerate-missing-nri-plugins.noderesource.dev"
"""NRI's documented example of the annotation that switches that check off."""
NRI_PLUGIN: Final = "noisegate"
"""Base name under which the node enforcer registers with NRI."""

CNI_INGRESS: Final = "kubernetes.io/ingress-bandwidth"
CNI_EGRESS: Final = "kubernetes.io/egress-bandwidth"
"""The CNI bandwidth plugin's own keys: not ours."""

MIRROR: Final = "kubernetes.io/config.mirror"
"""On the kubelet's own image of a static pod: the pod runs already, and nothing said about it changes that."""

OWN_PREFIX: Final = "noisegate.io/"
ENFORCES: Final = "noisegate.io/enforces-"
"""Prefix of the node labels (and injected node selector entries) `-disk`, `-network`, `-rdt`: `"true"`."""

OWN_ANNOTATIONS: Final = frozenset({PROFILE, VOLUME_PATHS, DEVICES_CONTAINER, RDT_OWN_POD})
"""Every annotation under `noisegate.io/` that means something, besides those under `RDT_OWN_CONTAINER`."""

_EXACT = frozenset({DISK, NETWORK, RDT_RUNTIME_POD, NETWORKS, DEFAULT_NETWORK, CPU_MUTATE})
_PREFIXES = (OWN_PREFIX, RDT_RUNTIME_CONTAINER, REQUIRED_PLUGINS, TOLERATE_MISSING_PLUGINS)


def is_unknown(annotation: str) -> bool:
    """Tell whether an annotation key is under our prefix and means nothing."""
    return (
        annotation.startswith(OWN_PREFIX)
        and annotation not in OWN_ANNOTATIONS
        and not annotation.startswith(RDT_OWN_CONTAINER)
    )


def is_ours(annotation: str) -> bool:
    """Tell whether an annotation key is one of ours."""
    return annotation in _EXACT or annotation.startswith(_PREFIXES)
