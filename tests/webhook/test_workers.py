"""What workers and their parent say to each other; the processes themselves are in test_server_life.py."""

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from noisegate.service.stop import Stop
from noisegate.webhook.workers import Link


@pytest.fixture(name="link")
def _link() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def test_worker_tells_changes_only(link: tuple[socket.socket, socket.socket]) -> None:
    """What was told is not told again; every line is whole between line feeds."""
    ours, theirs = link
    tell = Link(theirs).tell
    tell(["starting"], [])
    tell(["starting"], [])
    tell([], ["a note"])
    lines = [json.loads(line) for line in ours.recv(4096).split(b"\n") if line]
    assert lines == [{"reasons": ["starting"], "notes": []}, {"reasons": [], "notes": ["a note"]}]


def test_what_did_not_go_out_is_told_again(link: tuple[socket.socket, socket.socket]) -> None:
    """A parent that does not read does not block its worker, and hears the latest as soon as it reads."""
    ours, theirs = link
    tell = Link(theirs).tell
    note = "x" * 100_000
    for number in range(20):
        tell([], [f"{number} {note}"])
    heard = b""
    while b'"last"' not in heard:
        tell([], ["last"])
        heard += ours.recv(1 << 20)
    lines = [line for line in heard.split(b"\n") if line]
    assert json.loads(lines[-1]) == {"reasons": [], "notes": ["last"]}
    assert json.loads(lines[0])["notes"] == [f"0 {note}"]


@pytest.mark.parametrize("word", [True, False], ids=["word", "end"])
async def test_worker_obeys(link: tuple[socket.socket, socket.socket], word: bool) -> None:
    """A word from the parent, or the parent's end, is a wish to stop; nothing to read is not."""
    ours, theirs = link
    stop = Stop()
    worker = Link(theirs)
    worker.obey(stop)
    worker.hear(stop)
    assert not stop.asked.is_set()
    if word:
        ours.send(b"\n")
    else:
        ours.close()
    await asyncio.wait_for(stop.asked.wait(), 10)
    assert not stop.insisted.is_set()
