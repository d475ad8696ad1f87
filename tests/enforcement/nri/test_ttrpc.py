"""Calls and answers as ttrpc writes them, by hand and as laws."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.nri.mux import ProtocolError
from noisegate.enforcement.nri.ttrpc import (
    LONGEST,
    LONGEST_TOLD,
    Answer,
    Call,
    Client,
    Code,
    Message,
    Messages,
    Server,
    encode,
)
from noisegate.enforcement.nri.ttrpc_pb2 import Response

# Field 1 "a.B", field 2 "C", field 3 "xy", field 4 varint 2000000000: two seconds.
REQUEST = b"\x0a\x03a.B\x12\x01C\x1a\x02xy\x20\x80\xa8\xd6\xb9\x07"
CALL = b"\x00\x00\x00\x12\x00\x00\x00\x05\x01\x00" + REQUEST


def message(stream: int, kind: int, flags: int, body: bytes) -> bytes:
    """Return a message as the protocol describes it."""
    return struct.pack(">IIBB", len(body), stream, kind, flags) + body


def test_a_call_as_it_is_written() -> None:
    """The bytes of a request are read as the protocol's description says."""
    assert Server().feed(CALL) == [Call(5, "a.B", "C", b"xy", 2.0)]


def test_a_call_without_a_limit() -> None:
    """A caller that names no time waits for ever."""
    assert Server().feed(message(1, 1, 0, b"\x0a\x03a.B")) == [Call(1, "a.B", "", b"", None)]


def test_byte_by_byte() -> None:
    """A call is heard with its last byte, however it is torn."""
    server = Server()
    heard = [server.feed(CALL[at : at + 1]) for at in range(len(CALL))]
    assert heard == [[]] * (len(CALL) - 1) + [[Call(5, "a.B", "C", b"xy", 2.0)]]


def test_several_calls_in_one_read() -> None:
    """Calls that come together are heard in their order; the rest is kept for the next read."""
    server = Server()
    three = b"".join(message(stream, 1, 0, REQUEST) for stream in (1, 3, 5))
    heard = server.feed(three[:-1])
    assert [call.stream for call in heard] == [1, 3]
    assert [call.stream for call in server.feed(three[-1:])] == [5]


def test_fields_of_later_versions_are_skipped() -> None:
    """Metadata and fields that nobody knows yet change nothing."""
    metadata = b"\x2a\x08\x0a\x01k\x12\x03val"
    unknown = b"\xfa\x3e\x03abc" + b"\xf0\x3e\x07"
    assert Server().feed(message(1, 1, 0, REQUEST + metadata + unknown)) == [Call(1, "a.B", "C", b"xy", 2.0)]


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (message(2, 1, 0, REQUEST), Answer(2, b"", 3, "stream 2: a caller's numbers are odd")),
        (message(7, 3, 0, b""), Answer(7, b"", 3, "this call takes no stream of data")),
        (message(9, 1, 2, REQUEST), Answer(9, b"", 12, "streaming is not served here")),
        (message(9, 1, 0, b"\xff"), Answer(9, b"", 3, "the request is no ttrpc.Request")),
        (message(9, 1, 0, b"\x0a\x02\xff\xfe"), Answer(9, b"", 3, "the request is no ttrpc.Request")),
        (message(3, 1, 0, REQUEST), Answer(3, b"", 3, "stream 3 after 5: numbers rise")),
    ],
)
def test_a_call_that_cannot_be_taken(data: bytes, answer: Answer) -> None:
    """It is answered on its own stream; the calls around it are heard."""
    server = Server()
    before, after = server.feed(CALL), message(11, 1, 0, REQUEST)
    assert [heard.stream for heard in before] == [5]
    assert server.feed(data + after) == [answer, Call(11, "a.B", "C", b"xy", 2.0)]


def test_kinds_of_later_versions_are_skipped() -> None:
    """A message of an unknown kind is no error: that is how the protocol grows."""
    assert Server().feed(message(1, 9, 0, b"?") + CALL) == [Call(5, "a.B", "C", b"xy", 2.0)]
    assert Client().feed(message(1, 9, 0, b"?")) == []


def test_oversize() -> None:
    """4 MiB are taken; a byte more ends the connection, as soon as its header is there."""
    assert [len(one.body) for one in Messages().feed(message(1, 1, 0, bytes(LONGEST)))] == [4194304]
    with pytest.raises(ProtocolError, match="a message of 4194305 bytes; at most 4194304 are allowed"):
        Messages().feed(struct.pack(">IIBB", LONGEST + 1, 1, 1, 0))
    with pytest.raises(ValueError, match="a message of 4194305 bytes"):
        encode(Message(1, 1, 0, bytes(LONGEST + 1)))


def test_answers_as_they_are_written() -> None:
    """Success carries the payload and no status; an error its code and text."""
    assert Server.send(Answer(3, b"xy")) == message(3, 2, 0, b"\x12\x02xy")
    failed = Server.send(Answer(3, b"", Code.FAILED_PRECONDITION, "no"))
    assert failed == message(3, 2, 0, b"\x0a\x06\x08\x09\x12\x02no")


def test_a_long_or_broken_text_is_sent_all_the_same() -> None:
    """An error's text is cut to what an Event can hold, and a path that is not UTF-8 is escaped."""
    sent = Server.send(Answer(1, b"", Code.INTERNAL, "é\udcff" + "x" * 5000))
    told = Response.FromString(sent[10:]).status.message
    assert told.startswith("é\\udcffx")
    assert told.endswith("x...")
    assert len(told) == LONGEST_TOLD


def test_calls_of_ours() -> None:
    """A caller's streams are odd and rise; the time that is left goes with the call."""
    client = Client()
    assert client.call("a.B", "C", b"xy", 2.0) == (1, message(1, 1, 0, REQUEST))
    assert client.call("a.B", "", b"") == (3, message(3, 1, 0, b"\x0a\x03a.B"))
    assert client.feed(message(3, 2, 0, b"\x12\x01z") + message(1, 2, 0, b"\x0a\x05\x08\x02\x12\x01e")) == [
        Answer(3, b"z"),
        Answer(1, b"", 2, "e"),
    ]


def test_an_answer_that_is_none() -> None:
    """A response that is no message cannot be given to anybody."""
    with pytest.raises(ProtocolError, match=r"^the response on stream 1 is no ttrpc\.Response$"):
        Client().feed(message(1, 2, 0, b"\xff"))


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
CALLS = st.lists(st.tuples(TEXT, TEXT, st.binary(max_size=20000), st.none() | st.integers(1, 10**6)), max_size=5)


@given(CALLS, st.lists(st.integers(1, 30000)))
def test_law_calls_arrive(calls: list[tuple[str, str, bytes, int | None]], cuts: list[int]) -> None:
    """What a client calls, a server hears: the same values in the same order, however it is cut."""
    client, server = Client(), Server()
    sent = [client.call(service, method, payload, seconds) for service, method, payload, seconds in calls]
    data, heard = b"".join(data for _, data in sent), []
    for cut in cuts:
        heard += server.feed(data[:cut])
        data = data[cut:]
    heard += server.feed(data)
    assert heard == [Call(stream, *call) for (stream, _), call in zip(sent, calls, strict=True)]


STREAMS = st.integers(0, 2**32 - 1)
SUCCESSES = st.builds(Answer, STREAMS, st.binary(max_size=9000), st.just(0), st.just(""))
ERRORS = st.builds(Answer, STREAMS, st.just(b""), st.integers(1, 16), TEXT)


@given(st.lists(SUCCESSES | ERRORS))
def test_law_answers_arrive(answers: list[Answer]) -> None:
    """What a server answers, a client hears."""
    assert Client().feed(b"".join(map(Server.send, answers))) == answers


@given(st.lists(st.binary() | st.builds(message, st.integers(0, 9), st.integers(0, 4), st.integers(0, 3), st.binary())))
def test_law_any_bytes(reads: list[bytes]) -> None:
    """Any bytes are calls and answers, or a ProtocolError: nothing else."""
    server, client = Server(), Client()
    try:
        for data in reads:
            for heard in server.feed(data):
                assert isinstance(heard, Call | Answer)
    except ProtocolError:
        pass
    try:
        for data in reads:
            for answer in client.feed(data):
                assert isinstance(answer, Answer)
    except ProtocolError:
        pass
