"""The calls of ttrpc, as containerd speaks it (its PROTOCOL.md, version 1.0: unary calls): bytes in, calls and answers out.

    message   length u32, stream u32, both big-endian; type u8; flags u8; then `length` bytes
    stream    one call: a request, then its response; numbered by the caller, odd, each higher than the last

Nothing here reads or writes a socket: what is fed comes back as values, what is to be sent is returned as bytes.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from noisegate.enforcement.nri.mux import ProtocolError
from noisegate.enforcement.nri.ttrpc_pb2 import Request, Response

LONGEST: Final = 4 << 20
"""Bytes of one message without its header."""
LONGEST_TOLD: Final = 4096
"""Characters of an error's text: it ends in an Event of the pod."""

_HEADER: Final = struct.Struct(">IIBB")
_REQUEST: Final = 1
_RESPONSE: Final = 2
_DATA: Final = 3
_NANO: Final = 1_000_000_000


class Code(IntEnum):
    """The codes of gRPC that are used here."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Message(NamedTuple):
    """One message of a connection.

    Attributes:
        stream: The call it belongs to.
        kind: 1: request, 2: response, 3: data of a stream; others may come with later versions.
        flags: Of its kind; 0 in unary calls.
        body: What it carries.
    """

    stream: int
    kind: int
    flags: int
    body: bytes


class Call(NamedTuple):
    """What a caller asks.

    Attributes:
        stream: Its number on this connection.
        service: Full name, such as `nri.pkg.api.v1alpha1.Plugin`.
        method: Name within the service.
        payload: The method's message.
        seconds: What the caller waits from now on; None: for ever.
    """

    stream: int
    service: str
    method: str
    payload: bytes
    seconds: float | None = None


class Answer(NamedTuple):
    """What is said to a call.

    Attributes:
        stream: The call's number.
        payload: The method's message; empty with an error.
        code: `Code.OK`, or the kind of error.
        told: The error's text.
    """

    stream: int
    payload: bytes = b""
    code: int = Code.OK
    told: str = ""


class Messages:
    """Takes the bytes of one connection apart into messages."""

    __slots__ = ("_parts", "_size", "_wanted")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = _HEADER.size

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole by now.

        Raises:
            ProtocolError: A message is longer than 4 MiB.
        """
        # A message of 4 MiB comes in many pieces: they are joined once, when it is whole.
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return []
        data, at = b"".join(self._parts), 0
        messages: list[Message] = []
        self._wanted = _HEADER.size
        while len(data) - at >= _HEADER.size:
            length, stream, kind, flags = _HEADER.unpack_from(data, at)
            if length > LONGEST:
                raise ProtocolError(f"a message of {length} bytes; at most {LONGEST} are allowed")
            end = at + _HEADER.size + length
            if end > len(data):
                self._wanted = end - at
                break
            messages.append(Message(stream, kind, flags, data[at + _HEADER.size : end]))
            at = end
        self._parts = [data[at:]]
        self._size = len(data) - at
        return messages


def encode(message: Message) -> bytes:
    """Return a message's bytes.

    Raises:
        ValueError: It is longer than 4 MiB.
    """
    if len(message.body) > LONGEST:
        raise ValueError(f"a message of {len(message.body)} bytes; at most {LONGEST} are allowed")
    return _HEADER.pack(len(message.body), message.stream, message.kind, message.flags) + message.body


class Server:
    """The end of a connection that is called."""

    __slots__ = ("_last", "_messages")

    def __init__(self) -> None:
        self._messages: Final = Messages()
        self._last = 0

    def feed(self, data: bytes) -> list[Call | Answer]:
        """Return the calls that arrived; in place of a call that cannot be taken, the answer that says why.

        Raises:
            ProtocolError: What arrived cannot be taken apart.
        """
        return [heard for message in self._messages.feed(data) if (heard := self._hear(message)) is not None]

    def _hear(self, message: Message) -> Call | Answer | None:
        stream = message.stream
        if message.kind == _DATA:
            return _unfit(stream, "this call takes no stream of data")
        if message.kind != _REQUEST:
            # Later versions may add kinds; a receiver skips what it does not know.
            return None
        if stream % 2 == 0:
            return _unfit(stream, f"stream {stream}: a caller's numbers are odd")
        if stream <= self._last:
            return _unfit(stream, f"stream {stream} after {self._last}: numbers rise")
        self._last = stream
        if message.flags:
            return Answer(stream, b"", Code.UNIMPLEMENTED, "streaming is not served here")
        try:
            request = Request.FromString(message.body)
        except DecodeError:
            return _unfit(stream, "the request is no ttrpc.Request")
        seconds = request.timeout_nano / _NANO if request.timeout_nano else None
        return Call(stream, request.service, request.method, request.payload, seconds)

    @staticmethod
    def send(answer: Answer) -> bytes:
        """Return an answer's bytes."""
        response = Response(payload=answer.payload)
        if answer.code != Code.OK:
            response.status.code = answer.code
            response.status.message = _short(answer.told)
        return encode(Message(answer.stream, _RESPONSE, 0, response.SerializeToString()))


class Client:
    """The end of a connection that calls."""

    __slots__ = ("_messages", "_next")

    def __init__(self) -> None:
        self._messages: Final = Messages()
        self._next = 1

    def call(self, service: str, method: str, payload: bytes, seconds: float | None = None) -> tuple[int, bytes]:
        """Return the number of a new call, and its bytes; they must be sent in the order they were made in.

        Args:
            service: Full name.
            method: Name within the service.
            payload: The method's message.
            seconds: What we shall wait; None: for ever.
        """
        request = Request(service=service, method=method, payload=payload)
        if seconds is not None:
            request.timeout_nano = int(seconds * _NANO)
        data = encode(Message(self._next, _REQUEST, 0, request.SerializeToString()))
        stream, self._next = self._next, self._next + 2
        return stream, data

    def feed(self, data: bytes) -> list[Answer]:
        """Return the answers that arrived.

        Raises:
            ProtocolError: What arrived cannot be taken apart, or is no answer.
        """
        return [_answer(message) for message in self._messages.feed(data) if message.kind == _RESPONSE]


def _answer(message: Message) -> Answer:
    try:
        response = Response.FromString(message.body)
    except DecodeError as error:
        raise ProtocolError(f"the response on stream {message.stream} is no ttrpc.Response") from error
    return Answer(message.stream, response.payload, response.status.code, response.status.message)


def _unfit(stream: int, told: str) -> Answer:
    return Answer(stream, b"", Code.INVALID_ARGUMENT, told)


def _short(text: str) -> str:
    # Protobuf takes no lone surrogate, and paths on a node may hold some.
    text = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_TOLD else f"{text[: LONGEST_TOLD - 3]}..."
