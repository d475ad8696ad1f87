"""Which objects the API server sends us: `matchConditions` in CEL, made from the same tables as the code.

A condition is a set of clauses, any of which is enough; each is one line, joined by ` ||` at the line's end. So two
conditions are united line by line, whoever wrote them. A clause looks at `root`, the path of a pod or of a pod template.

CEL in Kubernetes: https://kubernetes.io/docs/reference/using-api/cel/. Absent fields are reached by optionals
(`a.?b[?"key"]`), which are equal when both are absent, so that no clause ever ends in an error.
"""

import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from noisegate.isolation import keys, kuryr, nad
from noisegate.webhook.rules import Rules, When

OR: Final = " ||\n"
"""Between two clauses."""
LONGEST: Final = 48_000
"""Characters of a condition. The API server takes expressions of 100,000, and two are united when rules change."""

Condition = dict[str, str]
"""`name` and `expression`."""

_SRIOV: Final = (keys.NETWORKS, keys.DEFAULT_NETWORK, keys.DEVICES_CONTAINER)
_OWN: Final = (keys.DISK, keys.NETWORK, keys.CPU_MUTATE)
_OWN_PREFIXES: Final = (keys.OWN_PREFIX, keys.RDT_RUNTIME)
# On a pod that exists, a change of these is judged whatever else the pod says.
_GUARDED_PREFIXES: Final = (*_OWN_PREFIXES, keys.REQUIRED_PLUGINS, keys.TOLERATE_MISSING_PLUGINS)
_NETWORK_KEYS: Final = (nad.RESOURCE_NAME, nad.NODE_SELECTOR, kuryr.CONFIG_KEY)
_IN_NAMESPACES: Final = string.ascii_lowercase + string.digits + "-"
"""Characters that a namespace's name may have (RFC 1123 label)."""


class Asks(NamedTuple):
    """Clauses that tell what a pod asks for.

    Attributes:
        own: It asks for something of ours beside SR-IOV, or a rule waits for it.
        sriov: It asks for SR-IOV interfaces.
        every: The rules wait for more than a condition can say: every pod has to be looked at, and `own` is empty.
    """

    own: tuple[str, ...]
    sriov: tuple[str, ...]
    every: bool = False


def asks(rules: Rules, root: str = "object") -> Asks:
    """Return what a pod that asks for something is known by.

    Args:
        rules: What is added to pods.
        root: Where the pod is: `object`, or the template's path.
    """
    prefixes = " || ".join(f"k.startsWith({_quoted(prefix)})" for prefix in _OWN_PREFIXES)
    own = [_has(root, "annotations", key) for key in _OWN]
    own.append(f"{_map(root, 'annotations')}.exists(k, ({prefixes}) && k != {_quoted(keys.DEVICES_CONTAINER)})")
    own += [_asked_for(root, resource) for resource in keys.CORE_RESOURCES]
    for rule in rules.rules:
        clause = _triggered(rule.when, root)
        if clause and clause not in own:
            own.append(clause)
    sriov = tuple(_has(root, "annotations", key) for key in _SRIOV)
    if "true" in own or len(OR.join(own)) > LONGEST:
        return Asks((), sriov, every=True)
    return Asks(tuple(own), sriov)


def changed(old: str = "oldObject", new: str = "object") -> tuple[str, ...]:
    """Return what a change of our annotations is known by, on whichever side they stand."""
    prefixes = " || ".join(f"k.startsWith({_quoted(prefix)})" for prefix in _GUARDED_PREFIXES)
    before, after = f"{old}.?metadata.?annotations[?k]", f"{new}.?metadata.?annotations[?k]"
    exact = [key for key in (*_OWN, *_SRIOV) if not key.startswith(_GUARDED_PREFIXES)]
    return (
        *(_differs(old, new, key) for key in exact),
        f"{_map(new, 'annotations')}.exists(k, ({prefixes}) && {before} != {after})",
        f"{_map(old, 'annotations')}.exists(k, ({prefixes}) && !{after}.hasValue())",
    )


def network_changed() -> tuple[str, ...]:
    """Return what a NetworkAttachmentDefinition is known by that is new, or of which something changed that is read."""
    return (
        "oldObject == null",
        "object.?spec.?config != oldObject.?spec.?config",
        *(_differs("oldObject", "object", key) for key in _NETWORK_KEYS),
    )


def any_of(name: str, clauses: Sequence[str]) -> Condition:
    """Return the condition that one of the clauses holds."""
    return {"name": name, "expression": OR.join(clauses)}


def none_of(name: str, clauses: Sequence[str]) -> Condition:
    """Return the condition that none of the clauses holds."""
    return {"name": name, "expression": f"!(\n{OR.join(clauses)}\n)"}


def widened(existing: Iterable[Mapping[str, str]], wanted: Iterable[Mapping[str, str]]) -> list[Condition]:
    """Return conditions that let through what either list lets through.

    What `none_of` says is united too: those are pods that another entry of the same object takes, whose conditions are
    united in the same write.

    Args:
        existing: As they are in the cluster; possibly edited by hand, or absent.
        wanted: As the rules want them.
    """
    there = {condition["name"]: condition["expression"] for condition in existing}
    united: list[Condition] = []
    for condition in wanted:
        name, expression = condition["name"], condition["expression"]
        # A condition that is not there lets everything through; so must the united one.
        if name in there:
            clauses = dict.fromkeys((*_clauses(there[name]), *_clauses(expression)))
            make = none_of if expression.startswith("!(\n") else any_of
            united.append(make(name, list(clauses)))
    return united


def _clauses(expression: str) -> list[str]:
    return expression.removeprefix("!(\n").removesuffix("\n)").split(OR)


def _triggered(when: When, root: str) -> str:
    """Return the clause of a rule; empty where nothing triggers it, or only what is asked about anyway."""
    if when.namespaces == ():
        return ""
    if when.resources and when.resources <= set(keys.CORE_RESOURCES):
        return ""
    if any(key in _OWN or key in _SRIOV or key.startswith(_OWN_PREFIXES) for key, _ in when.annotations):
        return ""
    parts: list[str] = []
    if when.namespaces is not None:
        places = _in_namespaces(when.namespaces)
        if not places:
            return ""
        parts.append(places)
    parts += [_is(root, "annotations", key, values) for key, values in when.annotations]
    parts += [_is(root, "labels", key, values) for key, values in when.labels]
    if when.resources:
        parts.append(_either(_asked_for(root, resource) for resource in sorted(when.resources)))
    return " && ".join(parts) or "true"


def _in_namespaces(globs: Sequence[str]) -> str:
    names = [glob for glob in globs if not set(glob) & set("*?[")]
    tests = [f"request.namespace in {_list(names)}"] if names else []
    for glob in globs:
        if glob not in names:
            pattern = "".join(_pattern(glob))
            # No character of a name is in an empty class.
            if "[]" not in pattern:
                tests.append(f"request.namespace.matches({_quoted(f'^{pattern}$')})")
    return _either(tests)


def _pattern(glob: str) -> Iterator[str]:
    """Yield a glob of `fnmatch` as an RE2 expression, which knows no other characters than names of namespaces have."""
    rest = glob
    while rest:
        piece = rest[0]
        if piece == "[":
            # As in fnmatch, a bracket that opens a class holds at least one character, `!` aside.
            end = rest.find("]", 3 if rest[1:2] == "!" else 2)
            piece = rest[: end + 1] if end > 0 else "["
        if piece == "*":
            yield ".*"
        elif piece == "?":
            yield "."
        elif len(piece) > 1:
            held = "".join(character for character in _IN_NAMESPACES if fnmatchcase(character, piece))
            yield f"[{held.replace('-', '')}{'-' if '-' in held else ''}]"
        else:
            # What no name has: the test fails, as fnmatch does.
            yield piece if piece in _IN_NAMESPACES else "[^ -~]"
        rest = rest[len(piece) :]


def _asked_for(root: str, resource: str) -> str:
    name = _quoted(resource)
    containers = f"({root}.spec.containers + {root}.spec.?initContainers.orValue([]))"
    return f"{containers}.exists(c, c.?resources.?limits[?{name}].hasValue() || c.?resources.?requests[?{name}].hasValue())"


def _is(root: str, field: str, key: str, values: frozenset[str]) -> str:
    if "*" in values:
        return _has(root, field, key)
    if len(values) == 1:
        return f"{_at(root, field, key)} == optional.of({_quoted(*values)})"
    return f"{_list(sorted(values))}.exists(v, {_at(root, field, key)} == optional.of(v))"


def _has(root: str, field: str, key: str) -> str:
    return f"{_at(root, field, key)}.hasValue()"


def _at(root: str, field: str, key: str) -> str:
    return f"{root}.?metadata.?{field}[?{_quoted(key)}]"


def _map(root: str, field: str) -> str:
    return f"{root}.?metadata.?{field}.orValue({{}})"


def _differs(old: str, new: str, key: str) -> str:
    return f"{_at(new, 'annotations', key)} != {_at(old, 'annotations', key)}"


def _either(tests: Iterable[str]) -> str:
    given = list(tests)
    return f"({' || '.join(given)})" if len(given) > 1 else "".join(given)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, values))}]"


def _quoted(text: str) -> str:
    # The escapes of JSON are escapes of CEL, surrogate pairs excepted: other characters stand for themselves.
    return json.dumps(text, ensure_ascii=False)
