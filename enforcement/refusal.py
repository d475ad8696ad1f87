"""What a pod asks for and this node cannot do: the start of its container fails with it, and an Event says it."""

from typing import Final


class Refusal(Exception):  # noqa: N818  (an answer to the runtime, not a fault of ours)
    """This node cannot hold what a pod asks for.

    Attributes:
        reason: One CamelCase word, the reason of the Event, such as `DeviceNotThrottled`.
        told: What cannot be done: value, place and errno's name, as one sentence without a full stop.
        mend: What to do next; empty where nothing is obvious.
    """

    def __init__(self, reason: str, told: str, mend: str = "") -> None:
        super().__init__(f"{told} ({mend})" if mend else told)
        self.reason: Final = reason
        self.told: Final = told
        self.mend: Final = mend
