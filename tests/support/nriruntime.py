"""The runtime's side of NRI over a real unix socket, written by hand from the wire's description.

containerd itself is spoken to in tests/runtime. This one does what a healthy containerd cannot be made to do: it stops in
the middle of a call, sends several calls at once, tears messages apart, and is older than the oldest that is supported.
It shares no code with what it tests but the generated messages.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.message import Message

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.ttrpc_pb2 import Request, Response

FRAME: Final = struct.Struct(">II")
HEADER: Final = struct.Struct(">IIBB")
PLUGIN: Final = "nri.pkg.api.v1alpha1.Plugin"
SECONDS: Final = 10.0
"""Until a test gives up waiting for something that must happen."""


class Said(NamedTuple):
    """What the plugin answered."""

    code: int
    told: str
    payload: bytes


class Peer:
    """A connected plugin, seen from the runtime."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.stream = 1
        self.buffers = {1: b"", 2: b""}
        self.asked: dict[int, asyncio.Future[Said]] = {}
        self.registered: asyncio.Future[pb.RegisterPluginRequest] = asyncio.get_running_loop().create_future()
        self.registration = 0
        self.gone = asyncio.Event()
        self.reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                connection, length = FRAME.unpack(await self.reader.readexactly(FRAME.size))
                assert connection in self.buffers
                assert 0 < length <= 4096, "containerd drops a plugin that sends longer frames"
                self.buffers[connection] += await self.reader.readexactly(length)
                self._messages(connection)
        except (asyncio.IncompleteReadError, OSError):
            self.gone.set()

    def _messages(self, connection: int) -> None:
        data = self.buffers[connection]
        while len(data) >= HEADER.size:
            length, stream, kind, flags = HEADER.unpack_from(data)
            if len(data) < HEADER.size + length:
                break
            body, data = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
            assert flags == 0
            if connection == 1:
                assert kind == 2
                response = Response.FromString(body)
                answer = Said(response.status.code, response.status.message, response.payload)
                self.asked.pop(stream).set_result(answer)
            else:
                assert kind == 1
                assert stream % 2 == 1
                request = Request.FromString(body)
                assert (request.service, request.method) == ("nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
                self.registration = stream
                self.registered.set_result(pb.RegisterPluginRequest.FromString(request.payload))
        self.buffers[connection] = data

    def send(self, method: str, payload: bytes, seconds: float = 2.0, piece: int = 4096) -> asyncio.Future[Said]:
        """Call the plugin; its answer comes later. A `piece` is how much of it goes into one frame."""
        stream, self.stream = self.stream, self.stream + 2
        request = Request(service=PLUGIN, method=method, payload=payload, timeout_nano=int(seconds * 1e9))
        body = request.SerializeToString()
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self.asked[stream] = answer
        self.frames(1, HEADER.pack(len(body), stream, 1, 0) + body, piece)
        return answer

    def frames(self, connection: int, data: bytes, piece: int = 4096) -> None:
        """Send bytes of a connection."""
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            self.writer.write(FRAME.pack(connection, len(part)) + part)

    async def call(self, method: str, message: Message, seconds: float = 2.0, piece: int = 4096) -> Said:
        """Call the plugin and wait for its answer."""
        async with asyncio.timeout(SECONDS):
            return await self.send(method, message.SerializeToString(), seconds, piece)

    async def register(self, told: str = "") -> pb.RegisterPluginRequest:
        """Wait for the plugin's registration and answer it; with a text: refuse it."""
        async with asyncio.timeout(SECONDS):
            registered = await self.registered
        response = Response()
        if told:
            response.status.code, response.status.message = 2, told
        body = response.SerializeToString()
        self.frames(2, HEADER.pack(len(body), self.registration, 2, 0) + body)
        return registered

    async def configure(self, request_timeout: int = 2000, nri_version: str = "v0.12.3") -> int:
        """Configure the plugin and return the event mask that it wants."""
        request = pb.ConfigureRequest(
            runtime_name="containerd", runtime_version="v2.4.2", registration_timeout=5000,
            request_timeout=request_timeout, nri_version=nri_version,
        )  # fmt: skip
        said = await self.call("Configure", request)
        assert said.code == 0, said.told
        return pb.ConfigureResponse.FromString(said.payload).events

    async def synchronize(
        self, pods: Sequence[pb.PodSandbox] = (), containers: Sequence[pb.Container] = (), parts: int = 1
    ) -> None:
        """Tell the plugin everything there is, in several parts."""
        for part in range(parts):
            more = part < parts - 1
            request = pb.SynchronizeRequest(pods=pods[part::parts], containers=containers[part::parts], more=more)
            said = await self.call("Synchronize", request, piece=1 << 20)
            assert said.code == 0, said.told
            assert pb.SynchronizeResponse.FromString(said.payload).more == more

    async def ready(self, request_timeout: int = 2000) -> None:
        """Do all that is done before the first event."""
        await self.register()
        await self.configure(request_timeout)
        await self.synchronize()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        self.reading.cancel()
        await asyncio.wait([self.reading])


class Runtime:
    """Takes plugins at a socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrived: asyncio.Queue[Peer] = asyncio.Queue()
        self.peers: list[Peer] = []
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self._arrive, str(self.path))

    async def stop(self) -> None:
        """Listen no more, and hang up on everybody."""
        if self.server is not None:
            self.server.close()
        for peer in self.peers:
            await peer.close()

    async def plugin(self) -> Peer:
        """Return the next plugin that connects."""
        async with asyncio.timeout(SECONDS):
            return await self.arrived.get()

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        await self.arrived.put(peer)


@asynccontextmanager
async def runtime(path: Path) -> AsyncIterator[Runtime]:
    """Listen at a socket for a while."""
    one = Runtime(path)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
