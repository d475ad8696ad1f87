"""What a rule may not say: fields that do not exist, what noisegate decides itself, and which privilege it gives."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from noisegate.isolation import keys
from noisegate.isolation.problems import nearest
from noisegate.service import manifests
from noisegate.webhook.leaf import Conflict, Leaf


def mapping(parent: Mapping[str, Any], field: str, place: str, wrong: manifests.Wrongs) -> dict[str, Any]:
    """Return the map at a field; anything else there is noted as wrong and counts as empty."""
    value = parent.get(field)
    if value is None or isinstance(value, dict):
        return dict(value or {})
    wrong.add(f"{place}.{field}", value, f"{field} is a map")
    return {}


def check_own(leaves: tuple[Leaf, ...], on_conflict: Conflict | None, place: str, wrong: manifests.Wrongs) -> None:
    """Refuse what noisegate decides itself, and what a pod could then not be created with."""
    for path, identity, value, _ in leaves:
        here = f"{place}.{'.'.join(path)}[{identity}]"
        if path == ("metadata", "annotations"):
            if identity in (keys.CPU_MUTATE, keys.VOLUME_PATHS):
                wrong.add(here, value, "a rule may not set this: " + _OWN_ANNOTATIONS[identity])
            elif keys.is_unknown(identity):
                meant = nearest(identity, keys.OWN_ANNOTATIONS)
                wrong.add(
                    here,
                    value,
                    f"noisegate knows no annotation {identity}" + (f"; did you mean {meant}?" if meant else ""),
                )
        elif path == ("spec", "nodeSelector") and identity.startswith(keys.ENFORCES):
            wrong.add(here, value, "a rule may not set this: noisegate does where enforcement is required")
        elif path[:1] == ("resources",) and identity in keys.CORE_RESOURCES and on_conflict == "replace":
            wrong.add(
                here,
                value,
                "a rule may not replace the cores that a container asks for; leave onConflict out, or write deny",
            )
        elif path == ("env",):
            if identity == keys.CPU_ENV:
                wrong.add(
                    here,
                    value.get("value", ""),
                    "a rule may not set this: noisegate does, from what each container asks for",
                )
            elif not isinstance(value.get("value", ""), str):
                wrong.add(
                    here, value["value"], 'the value of a variable is a string; put it in quotation marks, as in "1"'
                )


_OWN_ANNOTATIONS: Final = {
    keys.CPU_MUTATE: "it is the pod's word on the rules for exclusive cores",
    keys.VOLUME_PATHS: "noisegate does, from the mounts of the pod",
}


def check_fields(given: Mapping[str, Any], known: frozenset[str], place: str, wrong: manifests.Wrongs) -> None:
    """Note the fields that a rule may not set."""
    for field in sorted(given.keys() - known):
        meant = nearest(field, known)
        wrong.add(
            f"{place}.{field}", field, "a rule may not set this field" + (f"; did you mean {meant}?" if meant else "")
        )


def check_strings(parent: Mapping[str, Any], field: str, place: str, wrong: manifests.Wrongs) -> None:
    """Note the entries of a map whose values are no strings."""
    entries = parent.get(field)
    for key, value in (entries if isinstance(entries, dict) else {}).items():
        if not isinstance(value, str):
            wrong.add(
                f"{place}.{field}[{key}]", value, 'a string is needed; put the value in quotation marks, as in "true"'
            )


_PRIVILEGED_SPEC: Final = ("hostNetwork", "hostPID", "hostIPC")


def privileges(per_pod: tuple[Leaf, ...], per_container: tuple[Leaf, ...]) -> Iterator[str]:
    """Return the privileges that leaves give, in words."""
    for leaf in per_pod:
        field = leaf.path[-1] if leaf.path else ""
        if field == "volumes" and isinstance(leaf.value, dict) and "hostPath" in leaf.value:
            yield "host paths"
        elif field == "tolerations" and isinstance(leaf.value, dict) and not leaf.value.get("key"):
            yield "a toleration of every taint"
        elif leaf.path == ("spec",) and leaf.identity == "serviceAccountName":
            yield "a service account"
        elif leaf.path == ("spec",) and leaf.identity in _PRIVILEGED_SPEC and leaf.value:
            yield leaf.identity
        elif field == "initContainers":
            yield "a container of its own"
        elif "sysctls" in leaf.path:
            yield "sysctls"
    for leaf in per_container:
        if "capabilities" in leaf.path and leaf.path[-1] == "add":
            yield "capabilities"
        elif (
            leaf.path == ("securityContext",)
            and leaf.identity in ("privileged", "allowPrivilegeEscalation")
            and leaf.value
        ):
            yield f"securityContext.{leaf.identity}"
