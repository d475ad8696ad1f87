"""Frames of the multiplexed socket, by hand and as laws."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.nri.mux import LONGEST, LONGEST_SENT, Demultiplexer, ProtocolError, multiplex

TWO = b"\x00\x00\x00\x01\x00\x00\x00\x03abc" + b"\x00\x00\x00\x02\x00\x00\x00\x01d"


def joined(pieces: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return what each connection received."""
    received: dict[int, bytes] = {}
    for connection, piece in pieces:
        assert piece, "an empty piece says nothing"
        received[connection] = received.get(connection, b"") + piece
    return received


def test_frames_are_taken_apart() -> None:
    """Two frames in one read are two pieces, each of its connection."""
    assert Demultiplexer().feed(TWO) == [(1, b"abc"), (2, b"d")]


def test_byte_by_byte() -> None:
    """However the socket tears headers and frames, every byte arrives once, and as soon as it is there."""
    frames = Demultiplexer()
    pieces = [frames.feed(TWO[at : at + 1]) for at in range(len(TWO))]
    assert pieces == [[]] * 8 + [[(1, b"a")], [(1, b"b")], [(1, b"c")]] + [[]] * 8 + [[(2, b"d")]]


def test_an_empty_frame_is_nothing() -> None:
    """A frame without bytes is allowed and says nothing."""
    assert Demultiplexer().feed(struct.pack(">II", 1, 0) * 3 + TWO) == [(1, b"abc"), (2, b"d")]


def test_the_longest_frame_is_taken() -> None:
    """A frame may be as long as the longest ttrpc message with its header: 4 MiB and 10."""
    assert LONGEST == 4194314
    data = b"x" * LONGEST
    assert joined(Demultiplexer().feed(struct.pack(">II", 1, LONGEST) + data)) == {1: data}


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ((1, LONGEST + 1), "a frame of 4194315 bytes; at most 4194314 are allowed"),
        ((1, 0xFFFFFFFF), "a frame of 4294967295 bytes; at most 4194314 are allowed"),
        ((0, 3), "a frame for connection 0, which is reserved"),
    ],
)
def test_what_no_runtime_sends(header: tuple[int, int], told: str) -> None:
    """A length that no message has, and the reserved connection, are errors before anything is read of them."""
    with pytest.raises(ProtocolError, match=f"^{told}$"):
        Demultiplexer().feed(struct.pack(">II", *header))


def test_what_we_send_is_cut_at_4096() -> None:
    """The runtime drops a plugin whose frame is longer: 10000 bytes go as 4096, 4096 and 1808."""
    sent = multiplex(1, b"x" * 10000)
    sizes, at = [], 0
    while at < len(sent):
        connection, length = struct.unpack_from(">II", sent, at)
        assert connection == 1
        sizes.append(length)
        at += 8 + length
    assert sizes == [4096, 4096, 1808]
    assert multiplex(1, b"") == b""


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=3 * LONGEST_SENT))), st.lists(st.integers(1, 9000)))
def test_law_what_is_sent_arrives(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """Whatever is sent on several connections arrives on each, whole and in order, however the socket cuts it."""
    data = b"".join(multiplex(connection, piece) for connection, piece in sent)
    frames, pieces = Demultiplexer(), []
    for cut in cuts:
        pieces += frames.feed(data[:cut])
        data = data[cut:]
    pieces += frames.feed(data)
    assert joined(pieces) == joined([(connection, piece) for connection, piece in sent if piece])


@given(st.lists(st.binary()))
def test_law_any_bytes(reads: list[bytes]) -> None:
    """Any bytes are pieces, or a ProtocolError: nothing else, and never more bytes than came."""
    frames, pieces = Demultiplexer(), []
    try:
        for data in reads:
            pieces += frames.feed(data)
    except ProtocolError:
        return
    assert sum(len(piece) for _, piece in pieces) <= sum(map(len, reads))
