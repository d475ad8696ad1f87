"""mutations.yaml: what is added to pods, as data.

Two forms in one file. `mutations:` is the original's: one `perPod` (a partial Pod) and one `perContainer` (a partial
Container), for every pod that asks for exclusive cores. `rules:` is a list of named rules, each with `when`, `perPod`,
`perContainer` and `onConflict`. A rule is taken apart once, when the file is read, into leaves: single map entries and
single list elements, each with its identity, so that applying it twice changes nothing.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from noisegate.isolation import keys, podnetinfo
from noisegate.isolation.policy import Setting
from noisegate.service import manifests
from noisegate.webhook import podfields, rulechecks
from noisegate.webhook.leaf import MOUNTS, Conflict, Leaf, identity_of


class When(NamedTuple):
    """Conditions of a rule; all that are given must hold. Empty means not given.

    Attributes:
        resources: At least one container asks for one of these.
        annotations: Each key is there, with one of these values; `*` is any value.
        labels: The same for labels.
        namespaces: Names or globs, or None for every namespace; an empty tuple is no namespace at all.
    """

    resources: frozenset[str]
    annotations: tuple[tuple[str, frozenset[str]], ...]
    labels: tuple[tuple[str, frozenset[str]], ...]
    namespaces: tuple[str, ...] | None

    def in_namespace(self, namespace: str) -> bool:
        """Tell whether the rule works in a namespace."""
        return self.namespaces is None or any(fnmatchcase(namespace, glob) for glob in self.namespaces)


class Rule(NamedTuple):
    """One rule, taken apart.

    Attributes:
        name: Unique in the file.
        when: Its conditions.
        per_pod: What the pod gets, volumes that only the rule's own mounts use excepted.
        volumes: Those volumes by name: each is added only when a container mounts it.
        unit_mounts: The mounts that use each of those volumes, by its name.
        per_container: What each container gets, those mounts included.
        containers: `all`, `asking` (those that ask for one of `when.resources`), or names.
        on_conflict: What happens where the pod says something else; None is the default of each field.
        guaranteed: Whether the pod must be of QoS class Guaranteed.
        annotations: Those leaves of `per_pod` that are annotations.
        labels: Those that are labels.
        resources: Resources that `per_container` makes containers ask for.
        about_cores: Whether `cmk.intel.com/mutate` speaks of this rule: it is one for pods that ask for exclusive cores.
        profile: The value of `noisegate.io/profile` that opts in to this rule; empty where it is no profile.
        mounts: Names of the volumes that it adds or mounts.
        selects: Whether it adds to the pod's node selector.
        reaches: Whether what it adds or replaces can make the pod ask for something, or another rule work on it.
        wakes: Whether a rule of the file waits for an annotation, label or resource that this one adds.
    """

    name: str
    when: When
    per_pod: tuple[Leaf, ...]
    volumes: Mapping[str, Leaf]
    unit_mounts: Mapping[str, tuple[Leaf, ...]]
    per_container: tuple[Leaf, ...]
    containers: Literal["all", "asking"] | frozenset[str]
    on_conflict: Conflict | None
    guaranteed: bool
    annotations: tuple[Leaf, ...]
    labels: tuple[Leaf, ...]
    resources: frozenset[str]
    about_cores: bool
    profile: str
    mounts: frozenset[str]
    selects: bool
    reaches: bool
    wakes: bool = False


class Rules(NamedTuple):
    """A whole file.

    Attributes:
        rules: In the order of the file.
        notes: Warnings for the log.
        awaited: Every resource that some rule waits for.
    """

    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()
    awaited: frozenset[str] = frozenset()


NO_RULES: Final = Rules()

ORIGINAL: Final = "mutations"
"""Name of the rule that the original's form becomes."""


_Values = str | Annotated[list[str], Field(min_length=1)]


class _When(Setting):
    resources: list[str] = Field(default_factory=list)
    annotations: dict[str, _Values] = Field(default_factory=dict)
    labels: dict[str, _Values] = Field(default_factory=dict)
    namespaces: list[str] | None = None


class _Original(Setting):
    per_pod: dict[str, Any] | None = Field(default=None, alias="perPod")
    per_container: dict[str, Any] | None = Field(default=None, alias="perContainer")


class _Rule(_Original):
    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    when: _When
    on_conflict: Conflict | None = Field(default=None, alias="onConflict")
    require_qos: Literal["Guaranteed"] | None = Field(default=None, alias="requireQos")


class _File(Setting):
    mutations: _Original | None = None
    rules: list[_Rule] = Field(default_factory=list)


def load(text: str | bytes, file: str) -> Rules:
    """Read a rule file.

    Raises:
        ConfigError: Everything that is wrong with it, each with line, key, value and what is allowed.
    """
    model, lines = manifests.load_model(_File, text, file)
    wrong = manifests.Wrongs(file, lines)
    rules: list[Rule] = []
    notes: list[str] = []
    if model.mutations is not None:
        original = _Rule.model_construct(
            name=ORIGINAL,
            when=_When(resources=list(keys.CORE_RESOURCES)),
            per_pod=model.mutations.per_pod,
            per_container=model.mutations.per_container,
            on_conflict=None,
            require_qos=None,
        )
        rule, privileges = _compile(original, "mutations", wrong)
        rules.append(rule)
        if privileges:
            notes.append(
                f"{file}: mutations: gives {', '.join(privileges)} to asking pods of every namespace; "
                "write it as a rule with when.namespaces to limit that"
            )
    for index, rule_model in enumerate(model.rules):
        place = f"rules[{index}]"
        if rule_model.name in {rule.name for rule in rules} | {ORIGINAL}:
            wrong.add(f"{place}.name", rule_model.name, "the name is taken; each rule has a name of its own")
        rule, privileges = _compile(rule_model, place, wrong)
        rules.append(rule)
        namespaces = rule.when.namespaces
        if privileges and (namespaces is None or any(not glob.strip("*") for glob in namespaces)):
            wrong.add(
                f"{place}.when.namespaces",
                "" if namespaces is None else ", ".join(namespaces),
                f'rule "{rule.name}" gives {", ".join(privileges)}; such a rule names the namespaces it works in '
                "(names or globs, not * alone)",
            )
    wrong.raise_if_any()
    resources = frozenset[str]().union(*(rule.when.resources for rule in rules))
    keys_awaited = {key for rule in rules for key, _ in (*rule.when.annotations, *rule.when.labels)}
    woken = tuple(rule._replace(wakes=_wakes(rule, resources, keys_awaited)) for rule in rules)
    return Rules(woken, tuple(notes), resources)


def _wakes(rule: Rule, resources: frozenset[str], awaited: set[str]) -> bool:
    added = {leaf.identity for leaf in (*rule.annotations, *rule.labels)}
    return not rule.resources.isdisjoint(resources) or not added.isdisjoint(awaited)


def _compile(model: _Rule, place: str, wrong: manifests.Wrongs) -> tuple[Rule, list[str]]:
    pod, container = dict(model.per_pod or {}), dict(model.per_container or {})
    containers = container.pop("containers", "all")
    if isinstance(containers, list) and containers and all(isinstance(name, str) for name in containers):
        containers = frozenset(containers)
    elif containers not in ("all", "asking"):
        wrong.add(f"{place}.perContainer.containers", containers, "allowed: all, asking, or a list of container names")
        containers = "all"
    if containers == "asking" and not model.when.resources:
        wrong.add(
            f"{place}.perContainer.containers",
            containers,
            "asking needs when.resources: the resources that are asked for",
        )
    for field in sorted(pod.keys() - {"metadata", "spec"}):
        wrong.add(f"{place}.perPod.{field}", field, "allowed: metadata, spec")
        del pod[field]
    metadata = rulechecks.mapping(pod, "metadata", f"{place}.perPod", wrong)
    for field in ("annotations", "labels"):
        rulechecks.check_strings(metadata, field, f"{place}.perPod.metadata", wrong)
    for field in sorted(metadata.keys() - {"annotations", "labels"}):
        wrong.add(f"{place}.perPod.metadata.{field}", field, "allowed: annotations, labels")
    spec = rulechecks.mapping(pod, "spec", f"{place}.perPod", wrong)
    if "serviceAccount" in spec:
        # Deprecated alias; the API server reads serviceAccountName first, and it is always filled in by then.
        spec.setdefault("serviceAccountName", spec["serviceAccount"])
        del spec["serviceAccount"]
    pod = {"metadata": metadata, "spec": spec}
    rulechecks.check_strings(spec, "nodeSelector", f"{place}.perPod.spec", wrong)
    rulechecks.check_fields(
        spec, podfields.POD_SPEC - {"containers", "ephemeralContainers"}, f"{place}.perPod.spec", wrong
    )
    rulechecks.check_fields(container, podfields.CONTAINER - {"name"}, f"{place}.perContainer", wrong)

    per_pod = tuple(_leaves(pod, (), f"{place}.perPod", wrong))
    per_container = tuple(_leaves(container, (), f"{place}.perContainer", wrong))
    rulechecks.check_own(per_pod, model.on_conflict, f"{place}.perPod", wrong)
    rulechecks.check_own(per_container, model.on_conflict, f"{place}.perContainer", wrong)
    mounted = {leaf.value.get("name") for leaf in per_container if leaf.path in MOUNTS}
    volumes = {leaf.identity: leaf for leaf in per_pod if leaf.path == ("spec", "volumes") and leaf.identity in mounted}
    when = When(
        frozenset(model.when.resources),
        _conditions(model.when.annotations),
        _conditions(model.when.labels),
        None if model.when.namespaces is None else tuple(model.when.namespaces),
    )
    profiles = frozenset[str]().union(*(values for key, values in when.annotations if key == keys.PROFILE))
    if len(profiles) > 1 or "*" in profiles:
        wrong.add(
            f"{place}.when.annotations[{keys.PROFILE}]",
            ", ".join(sorted(profiles)),
            "a rule is one profile: write one name",
        )
    rule = Rule(
        name=model.name,
        when=when,
        per_pod=tuple(leaf for leaf in per_pod if leaf.identity not in volumes or leaf.path != ("spec", "volumes")),
        volumes=volumes,
        unit_mounts={
            name: tuple(leaf for leaf in per_container if leaf.path in MOUNTS and leaf.value.get("name") == name)
            for name in volumes
        },
        per_container=per_container,
        containers=containers,
        on_conflict=model.on_conflict,
        guaranteed=model.require_qos is not None,
        annotations=tuple(leaf for leaf in per_pod if leaf.path == ("metadata", "annotations")),
        labels=tuple(leaf for leaf in per_pod if leaf.path == ("metadata", "labels")),
        resources=frozenset(
            leaf.identity
            for leaf in per_container
            if leaf.path[:1] == ("resources",) and not leaf.element and leaf.value not in podfields.ZERO
        ),
        about_cores=not when.resources.isdisjoint(keys.CORE_RESOURCES),
        profile=min(profiles, default=""),
        mounts=frozenset(str(leaf.value.get("name")) for leaf in (*per_pod, *per_container) if leaf.path in _VOLUMES),
        selects=any(leaf.path == ("spec", "nodeSelector") for leaf in per_pod),
        reaches=any(_reaches(leaf, model.on_conflict) for leaf in (*per_pod, *per_container)),
    )
    return rule, sorted(set(rulechecks.privileges(per_pod, per_container)))


_VOLUMES: Final = (("spec", "volumes"), *MOUNTS)


def _reaches(leaf: Leaf, on_conflict: Conflict | None) -> bool:
    path, identity = leaf.path, leaf.identity
    return (
        path[:1] == ("resources",)
        or path[:2] == ("spec", "resources")
        or path == ("spec", "initContainers")
        or (path == ("spec",) and identity == "hostNetwork")
        or (path[:1] == ("metadata",) and on_conflict == "replace")
        or (path[-1:] in MOUNTS and identity == podnetinfo.MOUNT_PATH)
        or (path == ("spec", "volumes") and identity == podnetinfo.VOLUME)
        or (path == ("env",) and identity == podnetinfo.ENV)
    )


def _conditions(given: Mapping[str, str | list[str]]) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((key, frozenset([value] if isinstance(value, str) else value)) for key, value in sorted(given.items()))


def _leaves(value: Mapping[str, Any], path: tuple[str, ...], place: str, wrong: manifests.Wrongs) -> Iterator[Leaf]:
    for field, item in value.items():
        here = f"{place}[{field}]" if "." in field or "/" in field else f"{place}.{field}"
        if item is None:
            continue
        if path not in _STRING_MAPS and not isinstance(
            item, list if field in podfields.LISTS else dict if field in podfields.MAPS else object
        ):
            wrong.add(here, item, f"{field} is a {'list' if field in podfields.LISTS else 'map'}")
        elif isinstance(item, dict):
            yield from _leaves(item, (*path, field), here, wrong)
        elif isinstance(item, list) and field not in podfields.WHOLE_LISTS:
            for index, element in enumerate(item):
                identity = identity_of(field, element)
                if identity is None:
                    needed = " and ".join(podfields.MERGE_KEYS[field])
                    wrong.add(f"{here}[{index}]", element, f"an element of {field} is a map with {needed}")
                else:
                    yield Leaf((*path, field), identity, element, element=True)
        else:
            yield Leaf(path, field, item, element=False)


_STRING_MAPS: Final = (("metadata", "annotations"), ("metadata", "labels"), ("spec", "nodeSelector"))
