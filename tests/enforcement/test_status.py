"""What the enforcer says on its socket."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from noisegate.enforcement import status as status_module
from noisegate.enforcement.status import CheckStatus, DeviceStatus, NodeStatus, PodStatus, StatusServer, ask

POD: Final = PodStatus(
    "default", "web", "u1", "watch", [DeviceStatus("8:0", ["data"], {"wbps": 5}, {"wbps": 5}, {"wbps": None})]
)
WHOLE: Final = NodeStatus("n1", "0.4", True, "containerd v2.4.2", ["disk"], "none", [CheckStatus("kernel", True, "6.12", "5.10", "", ["disk"])], [POD])  # fmt: skip


async def _whole() -> NodeStatus:
    return WHOLE


@asynccontextmanager
async def serving(path: Path, answer: Callable[[], object] = _whole) -> AsyncIterator[StatusServer]:
    """Serve for a while."""
    server = StatusServer(path, answer)  # type: ignore[arg-type]
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def test_whoever_connects_is_told_all(tmp_path: Path) -> None:
    """One document and the end, several times and at once, also when it is much larger than a socket's buffer."""
    many = msgspec.structs.replace(
        WHOLE, pods=[msgspec.structs.replace(POD, uid=str(number)) for number in range(5000)]
    )

    async def large() -> NodeStatus:
        return many

    async with serving(tmp_path / "s.sock"):
        assert await ask(tmp_path / "s.sock") == WHOLE
    async with serving(tmp_path / "s.sock", large):
        assert await asyncio.gather(*(ask(tmp_path / "s.sock") for _ in range(3))) == [many] * 3


async def test_only_root_may_ask(tmp_path: Path) -> None:
    """Mode 0600 from its first moment, whatever the umask; the umask is as it was."""
    before = os.umask(0)
    try:
        async with serving(tmp_path / "s.sock"):
            assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_what_an_earlier_process_left_makes_way(tmp_path: Path) -> None:
    """A socket that nobody listens on, or another file of that name; at the end there is none."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    for _ in range(2):
        async with serving(path):
            assert await ask(path) == WHOLE
        assert not path.exists()
        path.write_text("a file")


async def test_nobody_listens(tmp_path: Path) -> None:
    """It is said at once."""
    with pytest.raises(FileNotFoundError):
        await ask(tmp_path / "s.sock")


async def test_a_status_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is not left waiting: the stream ends without a document; the next one is served."""
    fails = True

    async def one() -> NodeStatus:
        if fails:
            raise RuntimeError("no status")
        return WHOLE

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(str(context.get("exception"))))
    async with serving(tmp_path / "s.sock", one):
        with pytest.raises(msgspec.DecodeError):
            await ask(tmp_path / "s.sock")
        fails = False
        assert await ask(tmp_path / "s.sock") == WHOLE
    assert told == ["no status"]


async def test_an_answer_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side waits for ever."""
    monkeypatch.setattr(status_module, "SECONDS", 0.01)
    never = asyncio.Event()

    async def one() -> NodeStatus:
        await never.wait()
        return WHOLE

    async with serving(tmp_path / "s.sock", one):
        with pytest.raises((TimeoutError, msgspec.DecodeError)):
            await ask(tmp_path / "s.sock")
