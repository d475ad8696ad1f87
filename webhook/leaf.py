"""The smallest part of a rule: one thing that is added, with what makes it itself."""

from typing import Any, Final, Literal, NamedTuple

from noisegate.service import manifests
from noisegate.webhook import podfields

MOUNTS: Final = (("volumeMounts",), ("volumeDevices",))
"""Paths of the lists by which a container uses volumes."""

Conflict = Literal["keep", "replace", "deny"]


class Leaf(NamedTuple):
    """One thing to add.

    Attributes:
        path: Steps from the pod (or the container) to the map or list that holds it: `("spec", "volumes")`.
        identity: The member's name, or the element's merge key; two leaves of one path and identity are one thing.
        value: What stands there.
        element: Whether it is an element of a list rather than a member of a map.
    """

    path: tuple[str, ...]
    identity: str
    value: Any
    element: bool


def identity_of(field: str, element: Any) -> str | None:
    """Return what makes an element of the list `field` itself, or None where its merge key is missing."""
    merge_keys = podfields.MERGE_KEYS.get(field)
    if merge_keys is None:
        return manifests.canonical(element)
    if not isinstance(element, dict):
        return None
    parts = [element.get(key, podfields.KEY_DEFAULTS.get(key)) for key in merge_keys]
    if any(part is None for part in parts):
        return None
    if field == "volumeMounts":
        # The kubelet mounts at /data and at /data/ alike.
        return str(parts[0]).rstrip("/") or "/"
    return str(parts[0]) if len(parts) == 1 else manifests.canonical(parts)
