"""`noisegate node cleanup`: everything that was done to a node, undone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from noisegate.enforcement import survey
from noisegate.enforcement.config import Settings
from noisegate.enforcement.holder import Holder
from noisegate.enforcement.hostlock import host_lock
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.metrics import KINDS
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.refusal import Refusal

PODS = "pods"
DAMAGED = "damaged"


def cleanup(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Undo what the ledger names, then what bears our mark; yield a line for each, and whether it went.

    Raises:
        AlreadyHeldError: The enforcer runs.
        OSError: The state folder cannot be used.
    """
    state = Path(settings.state)
    with host_lock(state):
        parts = survey.Parts.of(settings)
        ledger = Ledger.open(state, survey.boot())
        for damage in ledger.damaged:
            yield f"{damage.file}: {damage.told}", False
        holder = Holder(parts.cgroups, parts.links, parts.shaper, parts.places, ledger, KINDS)
        for record in ledger.all():
            pod = f"{record.namespace}/{record.name} ({record.uid})"
            try:
                holder.release(record.uid)
            except Refusal as refusal:
                yield f"{pod}: {refusal}", False
            else:
                yield f"{pod}: its limits are undone", True
        yield from _traces(parts)
        yield from _groups(NodeRdt(parts.resctrl, runtime_config="", starts_in_group=False))
        if not ledger.all():
            shutil.rmtree(state / PODS, ignore_errors=True)
            shutil.rmtree(state / DAMAGED, ignore_errors=True)


def _traces(parts: survey.Parts) -> Iterator[tuple[str, bool]]:
    try:
        traces = parts.shaper.ours()
    except Refusal as refusal:
        yield str(refusal), False
        return
    for trace in traces:
        name = ", ".join(filter(None, (trace.interface.name if trace.interface else "", trace.ifb)))
        try:
            parts.shaper.remove(trace.interface, trace.ifb)
        except Refusal as refusal:
            yield f"{name}: {refusal}", False
        else:
            yield f"{name}: freed", True


def _groups(rdt: NodeRdt) -> Iterator[tuple[str, bool]]:
    report = rdt.cleanup()
    for action in report.done:
        yield f"resctrl group {action.group}: removed", True
    for outcome in report.outcomes:
        yield f"RDT class {outcome.rdt_class}: {outcome.told}", False
