"""Cache and memory bandwidth: which RDT class each container is to run in (pod-api.md 3).

Two families of keys choose a class: the container runtime's own (`rdt.resources.beta.kubernetes.io/...`, read by
containerd and CRI-O through goresctrl) and ours (`noisegate.io/rdt-class...`, applied by the node enforcer). In each
the container's key beats the pod's; both families on one container would mean two owners of one resctrl group.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from noisegate.isolation import keys
from noisegate.isolation.catalogue import Catalogue, RdtClass
from noisegate.isolation.problems import Code, Findings, in_annotation, nearest

ROOT_CLASS: Final = "system/default"
"""goresctrl's name of resctrl's root group: always there, in no class file."""

# A class becomes a directory under /sys/fs/resctrl, beside the kernel's own entries (Documentation/filesystems/resctrl.rst).
_NAME: Final = re.compile(r"(?!\.{1,2}$)[^\s/\x00-\x1f]{1,255}")
_KERNEL_ENTRIES: Final = frozenset(
    {"info", "mon_groups", "mon_data", "schemata", "tasks", "cpus", "cpus_list", "mode", "size"}
)

UNKNOWN_CLASS: Final = Code(
    "NG301",
    "rdt-unknown-class",
    "The class is in no partition of the cluster's class file, so the container could not be created on any node.",
    'rdt.resources.beta.kubernetes.io/pod: "gould"',
    'rdt.resources.beta.kubernetes.io/pod: "gold"',
)
TWO_OWNERS: Final = Code(
    "NG302",
    "rdt-two-owners",
    "The container's class is chosen both by a key of the container runtime and by a key of noisegate; a resctrl group has one owner.",
    'rdt.resources.beta.kubernetes.io/pod: "gold"\nnoisegate.io/rdt-class.app: "gold"',
    'rdt.resources.beta.kubernetes.io/pod: "gold"',
)
BAD_NAME: Final = Code(
    "NG303",
    "rdt-bad-class-name",
    "A class is a directory of the resctrl file system: its name is not empty and holds no blank and no slash.",
    'noisegate.io/rdt-class: "very gold"',
    'noisegate.io/rdt-class: "very-gold"',
)
CLASS_DENIED: Final = Code(
    "NG304",
    "rdt-class-denied",
    "The class file forbids choosing this class by annotation (kubernetes.denyPodAnnotation or denyContainerAnnotation).",
    'rdt.resources.beta.kubernetes.io/pod: "reserved"',
    'rdt.resources.beta.kubernetes.io/pod: "gold"',
)
UNKNOWN_CONTAINER: Final = Code(
    "NG305",
    "rdt-unknown-container",
    "The key names a container that the pod does not have.",
    'noisegate.io/rdt-class.ap: "gold"',
    'noisegate.io/rdt-class.app: "gold"',
)
UNCHECKED: Final = Code(
    "NG351",
    "rdt-unchecked",
    "Warning: the server has no class file, so the class was not checked; a wrong one fails when the container is created.",
    "policy: {}",
    "policy:\n  rdt:\n    classes: classes.yaml",
)
CODES: Final = (UNKNOWN_CLASS, TWO_OWNERS, BAD_NAME, CLASS_DENIED, UNKNOWN_CONTAINER, UNCHECKED)


class Choice(NamedTuple):
    """A class and the annotation that chose it. `own`: chosen by our key, so that the enforcer applies it."""

    rdt_class: str
    key: str
    own: bool


class RdtRequest(NamedTuple):
    """The classes a pod asks for, by annotation key.

    Attributes:
        pod: The choice for all containers, or None.
        containers: The choices for single containers, by name.
    """

    pod: Choice | None
    containers: Mapping[str, Choice]

    def class_of(self, container: str) -> Choice | None:
        """Return the choice that holds for a container; the most specific key wins."""
        return self.containers.get(container, self.pod)

    def asks_enforcer(self) -> bool:
        """Tell whether any class is to be applied by the node enforcer rather than by the runtime."""
        return (self.pod is not None and self.pod.own) or any(choice.own for choice in self.containers.values())


_PREFIXES: Final = (keys.RDT_OWN_POD, keys.RDT_RUNTIME_CONTAINER, keys.RDT_RUNTIME_POD)


def read(annotations: Mapping[str, str], found: Findings) -> RdtRequest | None:
    """Return what the annotations mean, or None where they ask for no class. Wrong keys are left out of the result."""
    pod: Choice | None = None
    containers: dict[str, Choice] = {}
    asked = False
    for key in sorted([key for key in annotations if key.startswith(_PREFIXES)]):
        if key.startswith(keys.RDT_OWN_POD):
            own, container = True, key[len(keys.RDT_OWN_CONTAINER) :]
            if key != keys.RDT_OWN_POD and not key.startswith(keys.RDT_OWN_CONTAINER):
                continue
        elif key.startswith(keys.RDT_RUNTIME_CONTAINER):
            own, container = False, key[len(keys.RDT_RUNTIME_CONTAINER) :]
        elif key == keys.RDT_RUNTIME_POD:
            own, container = False, ""
        else:
            continue
        asked = True
        choice = Choice(annotations[key], key, own)
        if not _well_named(choice, found):
            continue
        if key in (keys.RDT_OWN_POD, keys.RDT_RUNTIME_POD):
            pod = choice if pod is None or _one_owner(pod, choice, found) else pod
        else:
            other = containers.get(container)
            if other is None or _one_owner(other, choice, found):
                containers[container] = choice
    if pod is not None:
        for choice in containers.values():
            _one_owner(pod, choice, found)
    return RdtRequest(pod, containers) if asked else None


def fit(request: RdtRequest, containers: Iterable[str], found: Findings) -> None:
    """Check that every container that a key names exists. `containers`: names, init containers included."""
    if not request.containers:
        return
    names = frozenset(containers)
    for name, choice in request.containers.items():
        if name not in names:
            meant = nearest(name, names)
            found.deny(
                UNKNOWN_CONTAINER,
                in_annotation(choice.key),
                name,
                f'the pod has no container "{name}"; it has {", ".join(sorted(names))}',
                f"write {choice.key.removesuffix(name)}{meant}" if meant else "",
            )


def judge(request: RdtRequest, catalogue: Catalogue, found: Findings) -> None:
    """Check the classes against the cluster's class file."""
    choices = [*([request.pod] if request.pod else []), *request.containers.values()]
    known = catalogue.rdt_classes
    if known is None:
        for choice in choices[:1]:
            found.warn(
                UNCHECKED,
                in_annotation(choice.key),
                choice.rdt_class,
                f'RDT class "{choice.rdt_class}" was not checked: no class file is configured (policy.rdt.classes)',
            )
        return
    for choice in choices:
        name = choice.rdt_class
        rdt_class = known.get(name)
        for_pod = choice is request.pod
        if name == ROOT_CLASS if rdt_class is None else not _kept(rdt_class, for_pod=for_pod):
            continue
        allowed = sorted(other for other, each in known.items() if not _kept(each, for_pod=for_pod))
        meant = nearest(name, allowed)
        if rdt_class is None:
            code, told = UNKNOWN_CLASS, f'unknown RDT class "{name}"'
        else:
            setting = "denyPodAnnotation" if for_pod else "denyContainerAnnotation"
            code, told = (
                CLASS_DENIED,
                f'RDT class "{name}" may not be chosen here, the class file sets kubernetes.{setting}',
            )
        found.deny(
            code,
            in_annotation(choice.key),
            name,
            f"{told}; allowed: {', '.join(allowed) or 'none'}",
            f"write {meant}" if meant else "",
        )


def _kept(rdt_class: RdtClass, *, for_pod: bool) -> bool:
    """Tell whether the class file keeps a class from annotations of this kind."""
    return rdt_class.deny_pod_annotation if for_pod else rdt_class.deny_container_annotation


def _well_named(choice: Choice, found: Findings) -> bool:
    name = choice.rdt_class
    if name == ROOT_CLASS or (_NAME.fullmatch(name) and name not in _KERNEL_ENTRIES):
        return True
    told = "an RDT class name is empty" if not name else f'"{name}" is no name of an RDT class'
    found.deny(
        BAD_NAME,
        in_annotation(choice.key),
        name,
        f"{told}; allowed: 1 to 255 characters without blanks and slashes, or {ROOT_CLASS} for the root group",
        f"leave the annotation out, or write {ROOT_CLASS}" if not name else "",
    )
    return False


def _one_owner(first: Choice, second: Choice, found: Findings) -> bool:
    if first.own == second.own:
        return True
    ours, theirs = (first, second) if first.own else (second, first)
    found.deny(
        TWO_OWNERS,
        in_annotation(ours.key),
        ours.rdt_class,
        f"the container runtime's key {theirs.key} chooses a class for the same container",
        f"keep one of {ours.key} and {theirs.key}",
    )
    return False
