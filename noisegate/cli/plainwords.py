"""A patch in plain words: `env CMK_NUM_CORES=2 in app`, `volume podnetinfo (downwardAPI)`, `toleration cmk (Exists)`.

`noisegate demo` and `noisegate check` show these lines, and the comments of deploy/examples promise them. They tell what
the pod has afterwards and had not before, so they do not depend on how a patch bundles its operations.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import jsonpatch

from noisegate.isolation.problems import shown

LONGEST_VALUE: Final = 60
"""Characters of a value; what is longer is cut."""


def describe(operations: Sequence[Mapping[str, Any]], pod: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that a patch gives a pod, sorted.

    What takes the place of something that was there ends in `(was ...)`, or in a list in `(replaced)`.

    Args:
        operations: Of RFC 6902.
        pod: The pod that the patch is for; it stays as it is.

    Raises:
        jsonpatch.JsonPatchException: The operations cannot be applied to this pod.
        jsonpatch.JsonPointerException: They name a place that the pod does not have.
    """
    after = jsonpatch.apply_patch(pod, list(operations))
    return sorted(_differences(pod, after, (), ""))


def _differences(before: Any, after: Mapping[str, Any], path: tuple[str, ...], place: str) -> Iterator[str]:
    """Yield what a mapping has that it had not. `place`: where it stands, as the end of a line: ` in app`."""
    held = before if isinstance(before, dict) else {}
    for field, value in after.items():
        old = held.get(field)
        here = (*path, field)
        if value == old or (value is None and field not in held):
            continue
        if here in _CONTAINERS and isinstance(value, list):
            yield from _containers(old, value, here)
        elif isinstance(value, dict) and value:
            yield from _differences(old, value, here, place)
        elif isinstance(value, list):
            yield from _elements(old, value, here, place)
        else:
            yield (
                _member(path, field, value)
                + place
                + ("" if old is None or here in _FILLED_IN else f" (was {_cut(old)})")
            )


def _containers(before: Any, after: Sequence[Mapping[str, Any]], path: tuple[str, ...]) -> Iterator[str]:
    what = _CONTAINERS[path]
    known = {container["name"]: container for container in before or ()}
    for container in after:
        name = container["name"]
        if name in known:
            yield from _differences(known[name], container, (), f" in {what}{name}")
        else:
            yield f"{what or 'container '}{name} ({container.get('image', 'no image')})"


def _elements(before: Any, after: Sequence[Any], path: tuple[str, ...], place: str) -> Iterator[str]:
    had = before if isinstance(before, list) else []
    counts = Counter(map(_compact, had))
    names = {element["name"] for element in had} if path in _NAMED else frozenset()
    tell = _TOLD.get(path)
    for element in after:
        text = _compact(element)
        if counts[text]:
            counts[text] -= 1
            continue
        line = f"{'.'.join(path)} {_element(element)}" if tell is None else tell(element)
        read_only = path == ("volumeMounts",) and element.get("readOnly")
        replaced = path in _NAMED and element["name"] in names
        yield line + place + (" (read-only)" if read_only else "") + (" (replaced)" if replaced else "")


def _member(path: tuple[str, ...], field: str, value: Any) -> str:
    if path in _MAPS:
        return f"{_MAPS[path]} {field}={_cut(value)}"
    if (*path, field) == ("spec", "serviceAccountName"):
        return f"service account {_cut(value)}"
    return f"{'.'.join((*path, field))}={_cut(value)}"


def _element(element: Any) -> str:
    """Return an element of a list that has no words of its own; Kubernetes' pairs as `name=value`."""
    if isinstance(element, dict) and element.keys() == {"name", "value"}:
        return f"{element['name']}={_cut(element['value'])}"
    return _cut(element)


def _env(variable: Mapping[str, Any]) -> str:
    source = variable.get("valueFrom")
    if source:
        kind = next(iter(source))
        details = [source[kind][key] for key in ("name", "fieldPath", "resource", "key") if source[kind].get(key)]
        return f"env {variable['name']} from {' '.join([kind, *details])}"
    return f"env {variable['name']}={_cut(variable.get('value', ''))}"


def _volume(volume: Mapping[str, Any]) -> str:
    kind = next((key for key in volume if key != "name"), "emptyDir")
    source = volume.get(kind) or {}
    details = [source[key] for key in ("path", "claimName", "medium", "driver") if source.get(key)]
    return f"volume {volume['name']} ({' '.join([kind, *details])})"


def _mount(mount: Mapping[str, Any]) -> str:
    inside = f"/{mount['subPath']}" if mount.get("subPath") else ""
    return f"mount {mount['name']}{inside} at {mount['mountPath']}"


def _device(device: Mapping[str, Any]) -> str:
    return f"device {device['name']} at {device['devicePath']}"


def _toleration(toleration: Mapping[str, Any]) -> str:
    key = toleration.get("key") or "every taint"
    value = f"={toleration['value']}" if toleration.get("value") else ""
    how = ", ".join(filter(None, (toleration.get("operator") or "Equal", toleration.get("effect"))))
    return f"toleration {key}{value} ({how})"


def _cut(value: Any) -> str:
    text = shown(value if isinstance(value, str) else _compact(value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


_CONTAINERS: Final[Mapping[tuple[str, ...], str]] = {
    ("spec", "containers"): "",
    ("spec", "initContainers"): "init container ",
}
_MAPS: Final[Mapping[tuple[str, ...], str]] = {
    ("metadata", "annotations"): "annotation",
    ("metadata", "labels"): "label",
    ("spec", "nodeSelector"): "node selector",
    ("resources", "limits"): "limit",
    ("resources", "requests"): "request",
}
_TOLD: Final[Mapping[tuple[str, ...], Callable[[Mapping[str, Any]], str]]] = {
    ("env",): _env,
    ("volumeMounts",): _mount,
    ("volumeDevices",): _device,
    ("spec", "volumes"): _volume,
    ("spec", "tolerations"): _toleration,
}
# ServiceAccount admission fills in `default` before webhooks run; a rule replaces no other one.
_FILLED_IN: Final = frozenset({("spec", "serviceAccountName")})
_NAMED: Final = frozenset({("env",), ("spec", "volumes")})
"""Lists whose names are unique; a mount's is its volume's, and several mounts may have it."""
