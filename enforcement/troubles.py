"""What of pods cannot be meant or could not be made true, and who is told: users by Events, operators by log and metrics."""

from collections.abc import Collection
from typing import Final

from noisegate.enforcement.holder import Held
from noisegate.enforcement.intent.intent import Intent
from noisegate.enforcement.ledger import Record
from noisegate.enforcement.metrics import KINDS, Metrics
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.events import Events, Pod
from noisegate.isolation.asked import Kind
from noisegate.service.log import Log


class Troubles:
    """Keeps what is wrong, and tells it when it is new.

    Args:
        metrics: Where it is counted.
        log: Where it is told.
        events: Where users are told; None: there is no API server.

    Attributes:
        of: By pod and kind, what could not be made true.
        skipped: By pod, what it asks for and cannot be meant.
    """

    def __init__(self, metrics: Metrics, log: Log, events: Events | None) -> None:
        self.of: Final[dict[str, dict[Kind, Refusal]]] = {}
        self.skipped: Final[dict[str, Intent]] = {}
        self._metrics: Final = metrics
        self._log: Final = log
        self._events: Final = events

    def note(self, intent: Intent, held: Held, judged: Collection[Kind]) -> None:
        """Keep what could not be made true; of kinds that were not judged, what was kept of them stays."""
        before = self.of.pop(intent.uid, {})
        now = {kind: refusal for kind, refusal in before.items() if kind not in judged} | dict(held.refusals)
        if now:
            self.of[intent.uid] = now
        for kind, refusal in held.refusals.items():
            if str(before.get(kind)) != str(refusal):
                self._metrics.failures.labels(kind).inc()
                self._log.limited(
                    "not-held",
                    pod=f"{intent.namespace}/{intent.name}",
                    uid=intent.uid,
                    kind=kind,
                    reason=refusal.reason,
                    told=str(refusal),
                )
            self.event(intent, refusal.reason, str(refusal))

    def skip(self, intent: Intent) -> None:
        """Keep what cannot be meant and is left out."""
        if not intent.problems:
            self.skipped.pop(intent.uid, None)
            return
        known = self.skipped.get(intent.uid)
        self.skipped[intent.uid] = intent
        if known is not None and known.problems == intent.problems:
            return
        for kind in sorted(intent.asked.bad & set(KINDS)):
            self._metrics.skipped.labels(kind).inc()
        for problem in intent.problems:
            self.event(intent, "RequestMalformed", f"{problem}; this part is left out on the node, the rest is held")

    def event(self, about: Intent | Record, reason: str, note: str) -> None:
        """Tell a pod's users."""
        if self._events is not None:
            self._events.tell(Pod(about.namespace, about.name, about.uid), reason, note)

    def refuse(self, held: Held) -> None:
        """Refuse a start with everything that this node cannot hold.

        Raises:
            Refusal: If there is anything.
        """
        for kind in held.refusals:
            self._metrics.refusals.labels(kind).inc()
        if len(held.refusals) == 1:
            raise next(iter(held.refusals.values()))
        if held.refusals:
            told = "; ".join(f"{kind}: {refusal}" for kind, refusal in held.refusals.items())
            raise Refusal("NotHeld", told)
