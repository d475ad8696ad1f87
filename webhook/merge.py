"""What a rule wants against what a pod has: by Kubernetes' own merge keys, so that a second pass changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from noisegate.isolation import keys
from noisegate.isolation.problems import Code, Findings, shown
from noisegate.webhook import podfields
from noisegate.webhook.leaf import MOUNTS, Conflict, Leaf, identity_of
from noisegate.webhook.objects import NO_METADATA, NO_RESOURCES, NO_SPEC, Container, NotThatObject, Pod
from noisegate.webhook.patch import Patch, escape, pointer
from noisegate.webhook.rules import Rule

VOLUME_CONFLICT: Final = Code(
    "NG601",
    "volume-name-taken",
    "A rule of mutations.yaml adds a volume, but the pod has a volume of that name from another source.",
    "volumes:\n  - name: cmk-host-proc\n    emptyDir: {}",
    "volumes:\n  - name: scratch\n    emptyDir: {}",
)
RULE_CONFLICT: Final = Code(
    "NG602",
    "rule-conflict",
    "A rule of mutations.yaml says one thing, the pod another, and the rule is written to refuse that (onConflict: deny).",
    "nodeSelector: {pool: slow}",
    "nodeSelector: {pool: fast}",
)
KEPT: Final = Code(
    "NG651",
    "own-value-kept",
    "Warning: a rule of mutations.yaml sets this to another value; the pod's own is kept.",
    "serviceAccountName: mine",
    "(leave it out to get the rule's)",
)
CODES: Final = (VOLUME_CONFLICT, RULE_CONFLICT, KEPT)

# Markers that we write: whatever else stands there is replaced.
_OURS: Final = frozenset({keys.CPU_INJECTED, keys.VOLUME_PATHS, keys.REQUIRED_PLUGINS})


class Scope(NamedTuple):
    """A pod or one of its containers.

    Attributes:
        pointer: Its JSON pointer: empty for the pod, `/spec/containers/0` for a container.
        container: The container, or None for the pod.
    """

    pointer: str
    container: Container | None


class Merge:
    """Collects what one pod lacks.

    Attributes:
        pod: The pod.
        patch: What it lacks.
        pod_scope: The pod as a scope.
        containers: Its containers as scopes.
        init_containers: Its init containers as scopes.

    Args:
        pod: The pod, typed.
        raw: The same pod as bytes; decoded whole only for a rule that sets a field the typed view does not hold.
        found: Where conflicts go.
        root: JSON pointer of the pod in `raw`; empty where it is the whole.
    """

    def __init__(self, pod: Pod, raw: bytes | msgspec.Raw, found: Findings, root: str = "") -> None:
        self.pod = pod
        self.patch = Patch()
        self._raw = raw
        self._root = root
        self._whole: Any = None
        self._found = found
        self._settled: dict[tuple[str, tuple[str, ...], str], Any] = {}
        self.pod_scope = Scope("", None)
        spec = pod.spec
        self.containers = [Scope(f"/spec/containers/{place}", each) for place, each in enumerate(spec.containers)]
        self.init_containers = [
            Scope(f"/spec/initContainers/{place}", each) for place, each in enumerate(spec.init_containers)
        ]

    @property
    def whole(self) -> bool:
        """Whether the pod was decoded whole."""
        return self._whole is not None

    def put(self, scope: Scope, leaf: Leaf) -> None:
        """Add a leaf that is known to be absent; the first of several equal identities wins."""
        where, container = scope
        path, identity, value, element = leaf
        slot = (where, path, identity)
        if slot in self._settled:
            return
        self._settled[slot] = value
        field = (_POD_FIELDS if container is None else _CONTAINER_FIELDS).get(path)
        depth = len(path) if field is not None and field(container or self.pod) else self._present(scope, path)
        if depth == len(path):
            if element:
                self.patch.append(where + pointer(path), value)
            else:
                self.patch.set(f"{where}{pointer(path)}/{escape(identity)}", value)
            return
        root = where + pointer(path[: depth + 1])
        missing = path[depth + 1 :]
        innermost: Any = [] if element else {}
        parent = self.patch.make(root, {} if missing else innermost)
        for step in missing[:-1]:
            parent = parent.setdefault(step, {})
        if missing:
            parent = parent.setdefault(missing[-1], innermost)
        if element:
            parent.append(value)
        else:
            parent[identity] = value

    def want(self, scope: Scope, leaf: Leaf, rule: Rule) -> None:
        """Add a leaf of a rule where it is absent; where something else stands, do as the rule or the field says.

        What an earlier rule has settled, by adding it or by finding it as it wants it, stands: the second time the pod
        is seen, the same rule wins as the first time.
        """
        slot = (scope.pointer, leaf.path, leaf.identity)
        if slot in self._settled:
            return
        existing = self._existing(scope, leaf.path, list if leaf.element else Mapping)
        if leaf.element:
            place = find(leaf, existing or ())
            if place is None:
                self.put(scope, leaf)
            else:
                self._settle_element(scope, leaf, rule, place, existing[place])
            return
        value = self._member(scope, leaf, existing)
        if value is None or (leaf.identity == "serviceAccountName" and value == "default"):
            # ServiceAccount admission runs before webhooks and fills in `default`.
            self.put(scope, leaf)
        elif podfields.same(leaf.value, value, leaf.identity) or (
            leaf.path[-1:] and leaf.path[-1] in podfields.QUANTITY_MAPS and podfields.same_quantity(leaf.value, value)
        ):
            self._settled[slot] = leaf.value
        else:
            self._settle_member(scope, leaf, rule, value)

    def want_unit(self, rule: Rule, scopes: Sequence[Scope]) -> None:
        """Add a rule's volumes with the mounts that use them: only what a container mounts, only where its place is free."""
        for name, volume in rule.volumes.items():
            mounts = rule.unit_mounts[name]
            wanted: list[tuple[Scope, Leaf, int | None]] = []
            used = False
            for scope in scopes:
                for leaf in mounts:
                    settled = self._settled.get((scope.pointer, leaf.path, leaf.identity))
                    existing: Sequence[Any] = self._existing(scope, leaf.path, list)
                    place = find(leaf, existing)
                    if settled is not None:
                        used = used or settled.get("name") == name
                    elif place is None:
                        wanted.append((scope, leaf, None))
                    elif existing[place].name == name:
                        used = True
                        self._settled[(scope.pointer, leaf.path, leaf.identity)] = leaf.value
                    elif rule.on_conflict == "replace":
                        wanted.append((scope, leaf, place))
                    else:
                        self._settle_element(scope, leaf, rule, place, existing[place])
            if (used or wanted) and self._provide(rule, volume):
                for scope, leaf, place in wanted:
                    if place is None:
                        self.put(scope, leaf)
                    else:
                        self._replace(scope, f"{scope.pointer}{pointer(leaf.path)}/{place}", leaf)

    def _provide(self, rule: Rule, volume: Leaf) -> bool:
        """See to it that the pod has a volume of a rule, and tell whether it may be mounted."""
        name = volume.identity
        slot = ("", volume.path, name)
        settled = self._settled.get(slot)
        place = find(volume, self.pod.spec.volumes)
        if settled is not None:
            if podfields.same(volume.value, settled):
                return True
            source = "another rule adds one of that name"
        elif place is None:
            self.put(self.pod_scope, volume)
            return True
        elif podfields.same(volume.value, self.pod.spec.volumes[place]):
            self._settled[slot] = volume.value
            return True
        elif rule.on_conflict == "replace":
            self._replace(self.pod_scope, f"/spec/volumes/{place}", volume)
            return True
        else:
            source = "the pod has one of that name"
        if rule.on_conflict != "keep":
            self._found.deny(
                VOLUME_CONFLICT,
                "spec.volumes" if place is None else f"spec.volumes[{place}]",
                name,
                f'rule "{rule.name}" adds a volume "{name}", but {source} from another source',
                "rename the pod's volume and the mounts that use it",
            )
        return False

    def _settle_element(self, scope: Scope, leaf: Leaf, rule: Rule, place: int, existing: Any) -> None:
        field = leaf.path[-1]
        if _is_same(field, leaf.value, existing):
            self._settled[(scope.pointer, leaf.path, leaf.identity)] = leaf.value
            return
        where = f"{scope.pointer}{pointer(leaf.path)}/{place}"
        default: Conflict = "deny" if field == "volumes" else "keep"
        self._settle(scope, where, leaf, rule, rule.on_conflict or default, quiet=leaf.path in MOUNTS)

    def _settle_member(self, scope: Scope, leaf: Leaf, rule: Rule, existing: Any) -> None:
        where = f"{scope.pointer}{pointer(leaf.path)}/{escape(leaf.identity)}"
        if leaf.path == ("metadata", "annotations"):
            if leaf.identity in _OURS:
                self.put(scope, leaf)
                return
            if keys.is_ours(leaf.identity):
                # What the pod says itself wins over what a rule says for it.
                self._settle(scope, where, leaf, rule, "deny" if rule.on_conflict == "deny" else "keep", quiet=True)
                return
        self._settle(scope, where, leaf, rule, rule.on_conflict or "keep", quiet=False, existing=existing)

    def _settle(
        self, scope: Scope, where: str, leaf: Leaf, rule: Rule, conflict: Conflict, quiet: bool, existing: Any = None
    ) -> None:
        if conflict == "replace":
            self._replace(scope, where, leaf)
        elif conflict == "deny":
            self._found.deny(
                VOLUME_CONFLICT if leaf.path == ("spec", "volumes") else RULE_CONFLICT,
                readable(where),
                existing,
                f'rule "{rule.name}" sets {leaf.identity} and refuses pods that set it otherwise',
                "leave it out of the pod",
            )
        elif not quiet:
            self._found.warn(
                KEPT,
                readable(where),
                existing,
                f'rule "{rule.name}" sets {leaf.identity} otherwise; the pod\'s own is kept',
            )

    def _replace(self, scope: Scope, where: str, leaf: Leaf) -> None:
        self._settled[(scope.pointer, leaf.path, leaf.identity)] = leaf.value
        if leaf.element:
            self.patch.replace(where, leaf.value)
            # What another init container in its place lacks is seen when the pod is looked at again.
            self.init_containers = [each for each in self.init_containers if each.pointer != where]
        else:
            self.patch.set(where, leaf.value)

    def _member(self, scope: Scope, leaf: Leaf, existing: Any) -> Any:
        if scope.container is None and leaf.path == ("spec",) and leaf.identity == "serviceAccountName":
            return self.pod.spec.service_account_name or None
        return existing.get(leaf.identity) if isinstance(existing, dict) else None

    def _existing(self, scope: Scope, path: tuple[str, ...], kind: type = Mapping) -> Any:
        """Return the map or list at a path; empty or None where it is absent.

        Raises:
            NotThatObject: Something else stands there.
        """
        container = scope.container
        field = (_POD_FIELDS if container is None else _CONTAINER_FIELDS).get(path)
        if field is not None:
            return field(container or self.pod)
        value = self._at(scope.pointer)
        for depth, step in enumerate(path):
            value = self._step(value, step, scope.pointer + pointer(path[:depth]))
        if value is not None and not isinstance(value, kind):
            raise _wrong_type(value, scope.pointer + pointer(path))
        return value

    def _present(self, scope: Scope, path: tuple[str, ...]) -> int:
        """Return how many steps of a path lead to something that is there."""
        container = scope.container
        if container is None:
            if path in _POD_FIELDS:
                if (self.pod.metadata is NO_METADATA) if path[0] == "metadata" else (self.pod.spec is NO_SPEC):
                    return 0
                return 2 if _POD_FIELDS[path](self.pod) else 1
            if path == ("spec",):
                return 0 if self.pod.spec is NO_SPEC else 1
        elif path in _CONTAINER_FIELDS:
            if _CONTAINER_FIELDS[path](container):
                return len(path)
            return 0 if len(path) == 1 or container.resources is NO_RESOURCES else 1
        value = self._at(scope.pointer)
        for depth, step in enumerate(path):
            value = self._step(value, step, scope.pointer + pointer(path[:depth]))
            if value is None:
                return depth
        return len(path)

    def _at(self, place: str) -> Any:
        if self._whole is None:
            self._whole = msgspec.json.decode(self._raw)
        value = self._whole
        for step in (self._root + place).split("/")[1:]:
            value = value[int(step)] if isinstance(value, list) else self._step(value, step, place)
        return value

    @staticmethod
    def _step(value: Any, step: str, place: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise _wrong_type(value, place)
        return value.get(step)


def _wrong_type(value: Any, place: str) -> NotThatObject:
    return NotThatObject(f"{readable(place)} is {shown(value)}, which is of another type than it should be")


def _is_same(field: str, wanted: Any, existing: Any) -> bool:
    """Tell whether an element of a list is as it is wanted, given that their merge keys are equal."""
    if field in ("volumeMounts", "volumeDevices"):
        return bool(existing.name == wanted.get("name"))
    if field == "env":
        if "valueFrom" in wanted:
            return existing.value_from is not None and podfields.same(wanted["valueFrom"], existing.value_from)
        return existing.value_from is None and wanted.get("value", "") == (existing.value or "")
    if field == "initContainers":
        return podfields.covers(existing, wanted)
    return podfields.same(wanted, existing)


# The lists and maps that the typed view of a pod holds.
_POD_FIELDS: Final[Mapping[tuple[str, ...], Callable[[Any], Any]]] = {
    ("metadata", "annotations"): attrgetter("metadata.annotations"),
    ("metadata", "labels"): attrgetter("metadata.labels"),
    ("spec", "volumes"): attrgetter("spec.volumes"),
    ("spec", "tolerations"): attrgetter("spec.tolerations"),
    ("spec", "nodeSelector"): attrgetter("spec.node_selector"),
}
_CONTAINER_FIELDS: Final[Mapping[tuple[str, ...], Callable[[Any], Any]]] = {
    ("env",): attrgetter("env"),
    ("volumeMounts",): attrgetter("volume_mounts"),
    ("volumeDevices",): attrgetter("volume_devices"),
    ("resources", "limits"): attrgetter("resources.limits"),
    ("resources", "requests"): attrgetter("resources.requests"),
}


def find(leaf: Leaf, existing: Sequence[Any]) -> int | None:
    """Return the position of the element that is the leaf's own, by its merge key or, without one, by its whole value."""
    field, identity = leaf.path[-1], leaf.identity
    if field == "env":
        for place, variable in enumerate(existing):
            if variable.name == identity:
                return place
    elif field == "volumeMounts":
        path = identity.rstrip("/")
        for place, mount in enumerate(existing):
            if mount.mount_path.rstrip("/") == path:
                return place
    elif field == "volumeDevices":
        for place, device in enumerate(existing):
            if device.device_path == identity:
                return place
    elif field == "volumes":
        for place, volume in enumerate(existing):
            if volume.get("name") == identity:
                return place
    elif field in podfields.MERGE_KEYS:
        for place, each in enumerate(existing):
            if identity_of(field, each) == identity:
                return place
    else:
        for place, each in enumerate(existing):
            if podfields.same(leaf.value, each):
                return place
    return None


def readable(place: str) -> str:
    """Return a JSON pointer as the dotted path that messages use."""
    path = ""
    for escaped in place.split("/")[1:]:
        step = escaped.replace("~1", "/").replace("~0", "~")
        if step.isdigit() or "." in step or "/" in step:
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path
