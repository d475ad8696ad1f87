"""Who may have how much of something scarce: fair between clients, and answered at once.

The rule: while there is room, everybody is served. When there is none, a client that has less than its equal share is
served all the same, every other one is refused. So a client with thousands of calls cannot shut out one with a single
call, and nobody is held back while nobody else wants the room.

The bound: with n clients that hold something, at most `room * (1 + 1/2 + ... + 1/n)` is given out.
"""

from typing import Final


class Share:
    """Room for calls, connections or bytes.

    Args:
        room: How much there is, in whatever unit `take` is called with.
    """

    __slots__ = ("_held", "room", "taken")

    def __init__(self, room: int) -> None:
        self.room: Final = room
        self.taken = 0
        self._held: dict[str, int] = {}

    def take(self, client: str, amount: int = 1) -> bool:
        """Take an amount for a client, or refuse. What was taken must be given back."""
        held = self._held.get(client, 0)
        if self.taken + amount > self.room:
            clients = len(self._held) + (not held)
            if held + amount > max(1, self.room // clients):
                return False
        self._held[client] = held + amount
        self.taken += amount
        return True

    def give_back(self, client: str, amount: int = 1) -> None:
        """Give back what `take` took."""
        left = self._held[client] - amount
        self.taken -= amount
        if left:
            self._held[client] = left
        else:
            del self._held[client]
