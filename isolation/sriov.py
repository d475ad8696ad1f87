"""SR-IOV interfaces: from the networks a pod names to the devices its containers must be given (pod-api.md 4).

What the annotations mean is read in `networks`, what a NetworkAttachmentDefinition means in `nad`. Here the two meet the
pod: does it fit, is it allowed, and what does it need. How the pod is given that stands in `devices` and `podnetinfo`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from noisegate.isolation import kuryr, nad
from noisegate.isolation.catalogue import Catalogue
from noisegate.isolation.networks import Selection
from noisegate.isolation.pod import PodSpec
from noisegate.isolation.policy import SriovPolicy
from noisegate.isolation.problems import Code, Findings, in_annotation, nearest

MULTUS_NAMESPACE: Final = "kube-system"
"""Where Multus looks for a default network that names no namespace, unless its `multusNamespace` says otherwise."""

RESERVED_INTERFACES: Final = frozenset({"eth0", "lo"})
"""Interfaces that the runtime and the cluster's network make in every pod."""

NAME_TAKEN: Final = Code(
    "NG411",
    "sriov-interface-taken",
    "Two interfaces of one pod cannot have the same name; eth0 and lo are there already.",
    "k8s.v1.cni.cncf.io/networks: fast@eth0",
    "k8s.v1.cni.cncf.io/networks: fast@net1",
)
HOST_NETWORK: Final = Code(
    "NG412",
    "sriov-host-network",
    "A pod on the host's network has no network of its own, so no interface is attached to it; its devices would lie idle.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast\nspec:\n  hostNetwork: true",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast\nspec:\n  hostNetwork: false",
)
NO_NETWORK: Final = Code(
    "NG413",
    "sriov-no-such-network",
    "The NetworkAttachmentDefinition does not exist, so the pod could not start; it is looked up in the pod's own namespace unless the element names one.",
    "k8s.v1.cni.cncf.io/networks: fats",
    "k8s.v1.cni.cncf.io/networks: fast",
)
BAD_NETWORK: Final = Code(
    "NG414",
    "sriov-bad-network",
    "The NetworkAttachmentDefinition exists and cannot work; the message says what is wrong with it.",
    "k8s.v1.cni.cncf.io/networks: broken",
    "k8s.v1.cni.cncf.io/networks: fast",
)
SELECTOR_CONFLICT: Final = Code(
    "NG415",
    "sriov-node-selector-conflict",
    "The network works on nodes with one value of a label; the pod, or another of its networks, asks for a different value.",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast  # of nodes with nic=cx6\nspec:\n  nodeSelector: {nic: e810}",
    "metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/networks: fast\nspec:\n  nodeSelector: {nic: cx6}",
)
UNCHECKED: Final = Code(
    "NG461",
    "sriov-unchecked",
    "Warning: the server knows no NetworkAttachmentDefinitions, so the networks were not checked and no device was added.",
    "k8s.v1.cni.cncf.io/networks: fast",
    "(give the server a catalogue)",
)
NETWORK_MISSING: Final = Code(
    "NG462",
    "sriov-network-missing",
    "Warning: the NetworkAttachmentDefinition does not exist yet; no device is added for it.",
    "k8s.v1.cni.cncf.io/networks: later",
    "(create the NetworkAttachmentDefinition first)",
)
NAME_MAY_COLLIDE: Final = Code(
    "NG464",
    "sriov-interface-may-collide",
    "Warning: Multus names an interface net<position> where the element names none, and another element has taken that name.",
    "k8s.v1.cni.cncf.io/networks: fast@net2,slow",
    "k8s.v1.cni.cncf.io/networks: fast@net1,slow@net2",
)
NO_NAMESPACE: Final = Code(
    "NG465",
    "sriov-default-network-namespace",
    "Warning: Multus looks for a default network without a namespace in its own namespace, not in the pod's; others look in the pod's.",
    "v1.multus-cni.io/default-network: fast",
    "v1.multus-cni.io/default-network: kube-system/fast",
)
CODES: Final = (
    NAME_TAKEN, HOST_NETWORK, NO_NETWORK, BAD_NETWORK, SELECTOR_CONFLICT,
    UNCHECKED, NETWORK_MISSING, NAME_MAY_COLLIDE, NO_NAMESPACE,
)  # fmt: skip

_MOST_CANDIDATES: Final = 1000
_MOST_SUGGESTIONS: Final = 8
"""Looking for similar names among a thousand takes milliseconds; a hostile pod names hundreds."""
_SHOWN_PROBLEMS: Final = 3


class Attachments(NamedTuple):
    """What the attachments of a pod need.

    Attributes:
        units: Devices by extended resource; a network without a resource needs none.
        kuryr: The resources that Kuryr pairs with attachments, so that no surplus makes sense.
        labels: Node labels that the pod must select.
        networks: The NetworkAttachmentDefinitions named, as `namespace/name`, each once, in order.
        known: Whether all of them were found; else `units` is only what is known of.
    """

    units: Mapping[str, int]
    kuryr: frozenset[str]
    labels: Mapping[str, str]
    networks: tuple[str, ...]
    known: bool


NOTHING: Final = Attachments({}, frozenset(), {}, (), True)


def fit(selections: Sequence[Selection], spec: PodSpec, found: Findings) -> None:
    """Check the attachments against the pod: host network, and the names of its interfaces."""
    if not selections:
        return
    if spec.host_network:
        found.deny(
            HOST_NETWORK,
            "spec.hostNetwork",
            True,
            "a pod on the host's network gets no attachments of its own",
            "leave hostNetwork out, or the networks annotation",
        )
    for selection in selections:
        if selection.interface:
            _check_interfaces(selections, found)
            return


def _check_interfaces(selections: Sequence[Selection], found: Findings) -> None:
    taken: dict[str, Selection] = {}
    for selection in selections:
        name = selection.interface
        if not name:
            continue
        if name in RESERVED_INTERFACES and not (selection.default and name == "eth0"):
            found.deny(
                NAME_TAKEN,
                f"{selection.path}.interface",
                name,
                f'interface "{name}" is in every pod already',
                "leave it out, or write net1",
            )
        elif name in taken:
            told = f'interface "{name}" is also asked for by {taken[name].path}; each name can be used once'
            found.deny(
                NAME_TAKEN, f"{selection.path}.interface", name, told, "leave it out: Multus counts net1, net2, ..."
            )
        else:
            taken[name] = selection
    # Multus names an interface by its delegate's position; the cluster's default network is number 0 (getIfname).
    for selection in selections:
        other = taken.get(f"net{selection.position + 1}") if not selection.interface and not selection.default else None
        if other is not None:
            found.warn(
                NAME_MAY_COLLIDE,
                selection.path,
                selection.name,
                f'Multus will call this interface "{other.interface}", which {other.path} asks for',
                "name every interface, or none",
            )


def judge(
    selections: Sequence[Selection],
    namespace: str,
    policy: SriovPolicy,
    catalogue: Catalogue,
    found: Findings,
    *,
    later: bool = False,
) -> Attachments:
    """Look every network up and return what the attachments need.

    Args:
        selections: As read; each reference takes one device.
        namespace: The pod's.
        policy: What a missing network means, and Kuryr's mappings.
        catalogue: The NetworkAttachmentDefinitions.
        found: Problems and warnings.
        later: Whether networks may still be created (workload templates): a missing one is then only a warning.
    """
    if not selections:
        return NOTHING
    known = catalogue.networks
    if known is None:
        first = selections[0]
        found.warn(
            UNCHECKED,
            in_annotation(first.key),
            "",
            "the networks were not checked: no NetworkAttachmentDefinitions are configured",
        )
        return NOTHING._replace(known=False)
    units: dict[str, int] = {}
    kuryrs: set[str] = set()
    labels: dict[str, str] = {}
    seen: dict[str, str] = {}
    complete = True
    for selection in selections:
        name = f"{selection.namespace or (MULTUS_NAMESPACE if selection.default else namespace)}/{selection.name}"
        if name in seen:
            resource = seen[name]
        else:
            if selection.default and not selection.namespace:
                _warn_of_namespace(selection, found)
            network = known.get(name)
            if network is None:
                _report_missing(selection, name, policy.missing_network == "warn" or later, known, found)
                complete = False
                resource = ""
            else:
                view = nad.view(network)
                resource = view.resource
                if view.problems:
                    _report_bad(selection, name, view, found)
                    resource = ""
                elif view.subnet:
                    resource = kuryr.resource_of(view.subnet, name, policy.kuryr, selection.path, found)
                    if resource:
                        kuryrs.add(resource)
                if view.label is not None:
                    _merge_label(view.label, selection, name, labels, found)
            seen[name] = resource
        if resource:
            units[resource] = units.get(resource, 0) + 1
    return Attachments(units, frozenset(kuryrs), labels, tuple(seen), complete)


def _warn_of_namespace(selection: Selection, found: Findings) -> None:
    found.warn(
        NO_NAMESPACE,
        in_annotation(selection.key),
        selection.name,
        f"a default network without a namespace is taken from Multus' own namespace, {MULTUS_NAMESPACE} unless configured otherwise",
        f"write {MULTUS_NAMESPACE}/{selection.name}",
    )


def _report_missing(selection: Selection, name: str, warn: bool, known: Mapping[str, object], found: Findings) -> None:
    told = f"NetworkAttachmentDefinition {name} does not exist"
    if warn or (selection.default and not selection.namespace):
        found.warn(
            NETWORK_MISSING,
            selection.path,
            selection.name,
            f"{told}; nothing is added for it",
            "create it before the pod",
        )
        return
    namespace = name.partition("/")[0]
    meant = _similar(selection, name, namespace, known) if len(found.problems) < _MOST_SUGGESTIONS else ""
    hint = f"write {meant}" if meant else f"create it in namespace {namespace}"
    found.deny(NO_NETWORK, selection.path, selection.name, told, hint)


def _similar(selection: Selection, name: str, namespace: str, known: Mapping[str, object]) -> str:
    """Return the network that was probably meant: of this name in another namespace, or of a similar name."""
    elsewhere = [other for other in known if other.endswith(f"/{selection.name}")]
    if elsewhere:
        return min(elsewhere)
    beside = [other for other in known if other.startswith(f"{namespace}/")]
    return nearest(name, beside) if len(beside) <= _MOST_CANDIDATES else ""


def _report_bad(selection: Selection, name: str, view: nad.View, found: Findings) -> None:
    told = "; ".join(f"{problem.path}: {problem.message}" for problem in view.problems[:_SHOWN_PROBLEMS])
    more = len(view.problems) - _SHOWN_PROBLEMS
    found.deny(
        BAD_NETWORK,
        selection.path,
        selection.name,
        f"NetworkAttachmentDefinition {name} cannot work: {told}{f'; and {more} more' if more > 0 else ''}",
        f"mend {name}",
    )


def _merge_label(
    label: tuple[str, str], selection: Selection, name: str, labels: dict[str, str], found: Findings
) -> None:
    key, value = label
    if labels.setdefault(key, value) != value:
        found.deny(
            SELECTOR_CONFLICT,
            selection.path,
            selection.name,
            f'network {name} works on nodes with {key}="{value}", another network of the pod on nodes with {key}="{labels[key]}"',
            "use networks of one kind of node",
        )


def node_labels(attachments: Attachments, spec: PodSpec, found: Findings) -> Mapping[str, str]:
    """Return the node labels that the pod must select and does not yet; another value of the pod's own is a problem."""
    if not attachments.labels:
        return attachments.labels
    selected = spec.node_selector
    wanted: dict[str, str] = {}
    for key in sorted(attachments.labels):
        value = attachments.labels[key]
        own = selected.get(key)
        if own is None:
            wanted[key] = value
        elif own != value:
            found.deny(
                SELECTOR_CONFLICT,
                f"spec.nodeSelector[{key}]",
                own,
                f'the pod selects nodes with {key}="{own}", its networks work on nodes with {key}="{value}"',
                f'write "{value}", or leave the entry out',
            )
    return wanted
