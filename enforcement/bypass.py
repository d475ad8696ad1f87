"""Whether what pods send and receive passes the classes by that should hold it: some data paths take frames another way."""

from collections import Counter
from math import inf
from typing import Final

from noisegate.enforcement.holder import Holder
from noisegate.enforcement.kernel.links import GoneError
from noisegate.enforcement.plan.network import Counters, unreached
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.troubles import Troubles
from noisegate.enforcement.turns import Turns

YOUNG_ROUNDS: Final = 6
"""Rounds in which a new pod is looked at: a data path that passes classes by does so from the start."""
_MOVES: Final = {"ingress": "receives", "egress": "sends"}


class Bypass:
    """Compares what classes have counted with what the pods' interfaces have moved. To be used in one event loop.

    Args:
        holder: Knows the pods that are shaped.
        turns: Has threads.
        troubles: Where it is told, as an Event on the pod.

    Attributes:
        counted: By pod, what was counted at the last look.
        looks: By pod, how often it was looked at.
    """

    def __init__(self, holder: Holder, turns: Turns, troubles: Troubles) -> None:
        self.counted: Final[dict[str, Counters]] = {}
        self.looks: Final[Counter[str]] = Counter()
        self._holder: Final = holder
        self._turns: Final = turns
        self._troubles: Final = troubles

    async def look(self, most: float = inf) -> None:
        """Look at every pod that is shaped.

        Args:
            most: One that was looked at so often is left out.
        """
        for record in self._holder.ledger.all():
            shaped = record.network
            if shaped is None or self.looks[record.uid] >= most:
                continue
            self.looks[record.uid] += 1
            try:
                now = await self._turns.off_loop(self._holder.shaper.counters, shaped.interface, shaped.ifb)
            except (GoneError, Refusal):
                self.counted.pop(record.uid, None)
                continue
            before = self.counted.get(record.uid)
            self.counted[record.uid] = now
            for direction in unreached(before, now) if before is not None else ():
                told = f"what the pod {_MOVES[direction]} passes the class that holds its {direction}"
                why = f"something on {shaped.interface.name} takes the frames another way"
                mend = "see eBPF programs and filters: tc filter show, bpftool net"
                self._troubles.event(record, "NetworkLimitPassedBy", f"{told}: {why} ({mend})")
