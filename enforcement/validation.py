"""Whether a container that was held may start as all plugins together adjusted it."""

from collections.abc import Iterator

from noisegate.enforcement.intent.intent import Intent
from noisegate.enforcement.nri.events import Adjustment, Container, Owners, Validation
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.disk import in_container


def check(intent: Intent, validation: Validation, wanted: Adjustment, plugin: str) -> None:
    """Agree to an adjustment.

    Args:
        intent: What the pod asks for.
        validation: What is about to be done to its container.
        wanted: What we answered when the container was created.
        plugin: Our name, as `10-noisegate`.

    Raises:
        Refusal: Its limits would not hold it, or its RDT class would not be ours.
    """
    container, proposed, owners = validation.container, validation.adjustment, validation.owners
    for owner, what in _evading(intent, container, owners, plugin):
        told = f"plugin {owner} would give container {container.name} {what}, where its limits do not hold"
        raise Refusal("AdjustmentChanged", told, "take that plugin's setting away")
    for what, mine, theirs, owner in (
        ("clos_id", wanted.clos_id, proposed.clos_id, owners.clos_id),
        ("rdt_class", wanted.rdt_class, proposed.rdt_class, owners.rdt_class),
    ):
        if mine and (theirs != mine or owner != plugin):
            told = f"{what} of container {container.name} would be {theirs or 'none'} by plugin {owner or 'nobody'} instead of {mine}"
            raise Refusal("AdjustmentChanged", told, "take the other plugin's RDT setting away")
    if wanted.clos_id and owners.schemata:
        told = f"plugin {owners.schemata} would change the schemata of {wanted.clos_id}"
        raise Refusal("AdjustmentChanged", told, "take the other plugin's RDT setting away")


def _evading(intent: Intent, container: Container, owners: Owners, plugin: str) -> Iterator[tuple[str, str]]:
    """Yield who would take a container out of what was put in force for its pod, and by what."""
    asked = intent.asked
    if asked.disk is not None:
        if owners.cgroups_path:
            yield owners.cgroups_path, "another cgroup"
        changed = [
            (in_container(path), owner)
            for path, owner in (*owners.mounts.items(), *owners.devices.items())
            if _is_later(owner.removeprefix("-"), plugin)
        ]
        for entry in asked.disk.volumes:
            where = intent.volumes.get(entry.volume, {}).get(container.name)
            for path, owner in changed:
                if where and path == in_container(where):
                    yield owner, f"something else at {path}"
    if asked.network is not None and "network" in owners.namespaces:
        yield owners.namespaces["network"], "another network namespace"


def _is_later(other: str, plugin: str) -> bool:
    """Tell whether a plugin may have been asked after us: by index, and those of one index in any order (NRI's sortPlugins).

    What those before us changed, we have looked at.
    """
    return other != plugin and other[:2] >= plugin[:2]
