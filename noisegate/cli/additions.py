"""A patch in plain words: `env CMK_NUM_CORES=2 in app`, `volume podnetinfo (downwardAPI)`, `toleration of cmk`.

`noisegate demo` shows them, and the comments of deploy/examples promise them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noisegate.isolation.problems import shown

_CONTAINERS = ("containers", "initContainers")
_MAPS = {
    ("metadata", "annotations"): "annotation",
    ("metadata", "labels"): "label",
    ("spec", "nodeSelector"): "node selector",
    ("resources", "limits"): "limit",
    ("resources", "requests"): "request",
}
Steps = tuple[str, ...]


def in_words(before: Mapping[str, Any], patch: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a patch adds, one text for each thing, in the patch's order.

    Args:
        before: The pod that the patch is for.
        patch: Operations of RFC 6902 as the webhook writes them: `add` only.
    """
    words: list[str] = []
    for operation in patch:
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:])
        words += (_told(before, *leaf) for leaf in _leaves(steps, operation["value"]))
    return words


def _leaves(steps: Steps, value: Any) -> Iterator[tuple[Steps, Any]]:
    """Take apart what was made at once: an absent map or list comes with all that is put into it."""
    if steps[-1] == "-" or steps[-3:-1] in _MAPS or not value or not isinstance(value, dict | list):
        yield steps, value
    elif isinstance(value, list):
        for item in value:
            yield (*steps, "-"), item
    else:
        for field, item in value.items():
            yield from _leaves((*steps, field), item)


def _told(before: Mapping[str, Any], steps: Steps, value: Any) -> str:
    place = ""
    if len(steps) > 3 and steps[0] == "spec" and steps[1] in _CONTAINERS:
        place = f" in {before['spec'][steps[1]][int(steps[2])]['name']}"
        steps = steps[3:]
    return _thing(steps, value) + place


def _thing(steps: Steps, value: Any) -> str:
    if len(steps) > 2 and steps[-3:-1] in _MAPS:
        return f"{_MAPS[steps[-3:-1]]} {steps[-1]}={_plain(value)}"
    match steps:
        case ("env", "-"):
            given = f" ({_source(value['valueFrom'])})" if "valueFrom" in value else f"={_plain(value.get('value', ''))}"
            return f"env {value['name']}{given}"
        case ("volumeMounts", "-"):
            return f"mount {value['mountPath']} ({'read-only ' if value.get('readOnly') else ''}from volume {value.get('name', '')})"
        case ("volumeDevices", "-"):
            return f"device {value['devicePath']} (from volume {value.get('name', '')})"
        case ("spec", "volumes", "-"):
            return f"volume {value['name']} ({_source({k: v for k, v in value.items() if k != 'name'})})"
        case ("spec", "tolerations", "-"):
            return f"toleration of {_toleration(value)}"
        case ("spec", "serviceAccountName"):
            return f"service account {_plain(value)}"
    listed = steps[-1] == "-"
    path = ".".join(steps[:-1] if listed else steps).removeprefix("spec.")
    return f"{path} {_plain(value)}" if listed else f"{path}={_plain(value)}"


def _source(source: Mapping[str, Any]) -> str:
    """Name where a volume or a variable comes from, with the path or key where it has one."""
    for kind, inside in source.items():
        told = inside if isinstance(inside, dict) else {}
        detail = next((told[key] for key in ("path", "fieldPath", "claimName", "key") if isinstance(told.get(key), str)), "")
        return f"{kind} {detail}" if detail else kind
    return "emptyDir"


def _toleration(value: Mapping[str, Any]) -> str:
    key = value.get("key") or "every taint"
    equal = f"={value['value']}" if value.get("value") else ""
    return f"{key}{equal}" + (f":{value['effect']}" if value.get("effect") else "")


def _plain(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":")))
