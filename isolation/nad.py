"""NetworkAttachmentDefinitions (k8s.cni.cncf.io/v1): what one means for the pods that use it, and whether it can work."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from noisegate.isolation import cni, kuryr
from noisegate.isolation.catalogue import Network
from noisegate.isolation.problems import Code, Findings, Problem, in_annotation, shown

RESOURCE_NAME: Final = "k8s.v1.cni.cncf.io/resourceName"
"""Annotation: the extended resource of which each attachment takes one unit."""
NODE_SELECTOR: Final = "k8s.v1.cni.cncf.io/nodeSelector"
"""Annotation: one node label, `key=value` or `key`, that pods with this network must select."""

BAD_RESOURCE: Final = Code(
    "NG426",
    "nad-bad-resource-name",
    "The annotation becomes the name of an extended resource in the pod, which the API server takes only as prefix/name.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/resourceName: sriov_a",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/resourceName: intel.com/sriov_a",
)
BAD_SELECTOR: Final = Code(
    "NG427",
    "nad-bad-node-selector",
    "The annotation is one node label, key=value or key.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/nodeSelector: a=b,c=d",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/nodeSelector: a=b",
)
TWO_OWNERS: Final = Code(
    "NG428",
    "nad-two-owners",
    "A network of Kuryr's gets its devices through Kuryr: it has no CNI configuration and no resource name of its own.",
    'metadata:\n  annotations:\n    openstack.org/kuryr-config: \'{"subnetId": "88d0b025-2710-4f02-a348-2829853b45da", "driverType": "sriov"}\'\n'
    'spec:\n  config: \'{"type": "sriov"}\'',
    'metadata:\n  annotations:\n    openstack.org/kuryr-config: \'{"subnetId": "88d0b025-2710-4f02-a348-2829853b45da", "driverType": "sriov"}\'',
)
CODES: Final = (*cni.CODES, BAD_RESOURCE, BAD_SELECTOR, TWO_OWNERS)

_CACHED_TEXT: Final = 16_384
"""Characters of a definition up to which the result is kept; real ones have some hundred."""

# k8s.io/apimachinery/pkg/util/validation: qualified names, label values, DNS subdomains.
_SUBDOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"(?=.{1,63}\Z)([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE: Final = re.compile(r"(?=.{0,63}\Z)(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


class View(NamedTuple):
    """What a NetworkAttachmentDefinition means for the pods that use it.

    Attributes:
        resource: The extended resource of which each attachment takes one unit; empty: none.
        label: The node label that pods must select, key and value, or None.
        subnet: The Neutron subnet of a network that Kuryr serves by SR-IOV; else empty.
        problems: What is wrong with it; paths start at its own root.
        warnings: What is doubtful about it.
    """

    resource: str
    label: tuple[str, str] | None
    subnet: str
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check(annotations: Mapping[str, str], config: str, found: Findings) -> None:
    """Check a NetworkAttachmentDefinition that is created or changed. `config`: `spec.config`, empty where absent."""
    seen = view(Network(annotations, config))
    found.problems.extend(seen.problems)
    found.warnings.extend(seen.warnings)


def view(network: Network) -> View:
    """Return what a NetworkAttachmentDefinition means. The same texts are judged once, however many pods use them."""
    annotations, config = network
    resource = annotations.get(RESOURCE_NAME)
    selector = annotations.get(NODE_SELECTOR)
    kuryr_config = annotations.get(kuryr.CONFIG_KEY)
    length = len(resource or "") + len(selector or "") + len(kuryr_config or "") + len(config)
    judge = _view_cached if length <= _CACHED_TEXT else _view
    return judge(resource, selector, kuryr_config, config)


def _view(resource: str | None, selector: str | None, kuryr_config: str | None, config: str) -> View:
    found = Findings()
    if resource is not None:
        _check_resource_name(resource, found)
    label = None if selector is None else _read_selector(selector, found)
    subnet = "" if kuryr_config is None else kuryr.read(kuryr_config, found)
    if subnet:
        for text, path, name in (
            (config, cni.PATH, cni.PATH),
            (resource, in_annotation(RESOURCE_NAME), RESOURCE_NAME),
        ):
            if text:
                found.deny(
                    TWO_OWNERS,
                    path,
                    text,
                    f"a network with {kuryr.CONFIG_KEY} has no {name}",
                    f"leave {name} out, or {kuryr.CONFIG_KEY}",
                )
    elif config:
        cni.check_config(config, resource is not None, found)
    return View(resource or "", label, subnet, tuple(found.problems), tuple(found.warnings))


_view_cached = lru_cache(maxsize=512)(_view)


def _check_resource_name(name: str, found: Findings) -> None:
    prefix, slash, rest = name.partition("/")
    if not slash:
        told = "has no prefix"
    elif not _SUBDOMAIN.fullmatch(prefix):
        told = f'has the prefix "{shown(prefix)}", which is no lower-case DNS name'
    elif prefix.endswith("kubernetes.io") or prefix.startswith("requests."):
        # Kubernetes keeps kubernetes.io for itself and `requests.` for quotas (IsExtendedResourceName).
        told = f'has the prefix "{prefix}", which Kubernetes keeps for itself'
    elif not _QUALIFIED.fullmatch(rest):
        told = f'has the name "{shown(rest)}" behind the prefix, which is not 1 to 63 letters, digits, "-", "_" and "."'
    else:
        return
    found.deny(
        BAD_RESOURCE,
        in_annotation(RESOURCE_NAME),
        name,
        f'"{shown(name)}" {told}; an extended resource is <DNS name>/<name>',
        f"write intel.com/{name}" if not slash and _QUALIFIED.fullmatch(name) else "",
    )


def _read_selector(text: str, found: Findings) -> tuple[str, str] | None:
    key, _, value = (part.strip() for part in text.partition("="))
    prefix, slash, name = key.rpartition("/")
    if (not slash or _SUBDOMAIN.fullmatch(prefix)) and _QUALIFIED.fullmatch(name) and _LABEL_VALUE.fullmatch(value):
        return key, value
    found.deny(
        BAD_SELECTOR,
        in_annotation(NODE_SELECTOR),
        text,
        f'"{shown(text)}" is not one node label; allowed: key=value, or key for an empty value',
        "keep one label" if "," in text else "",
    )
    return None
