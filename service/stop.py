"""The wish that a server ends."""

import asyncio
import contextlib
import signal
from typing import Final


class Stop:
    """The wish that a server ends: the first time in good order, the second time at once."""

    def __init__(self) -> None:
        self.asked: Final = asyncio.Event()
        self.insisted: Final = asyncio.Event()

    def ask(self) -> None:
        """Ask, or insist."""
        (self.insisted if self.asked.is_set() else self.asked).set()

    def on_signals(self) -> None:
        """Ask at SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)

    async def within(self, seconds: float) -> None:
        """Wait for a time, less if somebody insists."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.insisted.wait()
