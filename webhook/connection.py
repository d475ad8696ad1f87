"""The long way: whatever is not an ordinary call, by aiohttp's `web.Server`."""

import asyncio
import time
from typing import Any, Final, cast

from aiohttp import ClientError, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from noisegate.service.log import http
from noisegate.service.reply import JSON, Reply, refusal, response
from noisegate.webhook.edge import Edge, Peer
from noisegate.webhook.metrics import Endpoint

LINGER_SECONDS: Final = 1.0
"""For a client to stop sending a body that was refused; closing at once could cost it the answer."""
SMALL_BODY: Final = 64 << 10
"""Bytes of a body for which no room among the large ones is needed."""


class Connection(web.RequestHandler):
    """The long way: aiohttp's connection, with time-outs and refusals of ours."""

    __slots__ = ("edge", "peer")

    def __init__(self, server: "Server", peer: Peer, **options: Any) -> None:
        super().__init__(server, **options)
        self.edge: Final = server.edge
        self.peer: Final = peer

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first ones of a head start its time."""
        if data and self.peer.waits == "call":
            self.edge.await_(self.peer, "head")
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go."""
        super().connection_lost(exc)
        self.edge.goodbye(self.peer)

    def pause_writing(self) -> None:
        """Give a client that does not take its answer some time."""
        super().pause_writing()
        self.edge.await_(self.peer, "reader")

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self.edge.rest(self.peer)

    def handle_error(
        self, _request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no call, and what we failed on, in one sentence and without aiohttp's page."""
        self.edge.rest(self.peer)
        if status < 500:
            detail = " ".join((message or "").split())[:200]
            self.edge.refuse(self.peer, "malformed", status, detail)
            return refusal(status, f"not a call in HTTP/1.1: {detail}", close=True)
        self.edge.metrics.failures.inc()
        self.edge.log.fault("failed", cause=exc, client=self.peer.client)
        return refusal(500, "noisegate failed on this call by its own fault; its log says why", close=True)


class Server(web.Server):
    """Answers what comes the long way.

    Args:
        edge: What every call passes.
    """

    def __init__(self, edge: Edge) -> None:
        super().__init__(self.answer, request_factory=self._request)
        self.edge: Final = edge
        self._running: Final = asyncio.get_running_loop()

    def heir(self, peer: Peer) -> Connection:
        """Return a connection that takes over from the short way."""
        # The edge's own sweep ends connections that rest; aiohttp's clock stands behind it.
        return Connection(
            self,
            peer,
            loop=self._running,
            keepalive_timeout=2 * self.edge.config.idle_seconds,
            lingering_time=LINGER_SECONDS,
            access_log=None,
            auto_decompress=False,
            logger=http,
        )

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call that came the long way."""
        connection = cast("Connection", request.protocol)
        try:
            return await self._answer(request, connection.peer)
        except _RefusedError as error:
            # A client that has left within its body is counted where connections end.
            if connection.transport is not None:
                self.edge.refuse(connection.peer, error.reason, error.status, error.sentence, request.raw_path)
            unread = not request.content.is_eof()
            return refusal(error.status, error.sentence, close=error.close or unread, **error.headers)
        finally:
            self.edge.rest(connection.peer)

    async def _answer(self, request: web.BaseRequest, peer: Peer) -> web.StreamResponse:
        began = time.perf_counter()
        edge = self.edge
        endpoint = self._admitted(request, peer)
        payload = request.content
        if payload.is_eof() and edge.prefetch is None:
            body = payload.read_nowait()
        elif not edge.calls.take(peer.client):
            most = edge.config.max_in_flight
            raise _RefusedError(
                "busy", 429, f"{most} calls are in flight, as many as may be; call again", Retry_After="1"
            )
        else:
            try:
                body = await self._body(request, peer)
                if body and (wait := edge.look_up(body)) is not None:
                    await edge.looked_up(peer, wait)
            finally:
                edge.calls.give_back(peer.client)
        if not body:
            raise _RefusedError("empty", 400, "the body is empty; send an AdmissionReview as JSON")
        answer = edge.decide(endpoint, body, began)
        close = edge.last_answer(peer) or not request.keep_alive
        if answer.status == 200 and request.version == HttpVersion11:
            return Reply(edge.heads.whole(answer.body, close=close), close=close)
        return response(answer.status, answer.body, close=close)

    def _admitted(self, request: web.BaseRequest, peer: Peer) -> Endpoint:
        if peer.refused:
            raise _RefusedError("client-name", 403, peer.refused, close=True)
        endpoint = self.edge.endpoints.get(request.rel_url.raw_path)
        if endpoint is None:
            raise _RefusedError("path", 404, f"nothing is here; allowed: {', '.join(self.edge.endpoints)}")
        if request.method != "POST":
            raise _RefusedError("method", 405, f"{request.method} is not allowed here; allowed: POST", Allow="POST")
        if request.content_type != JSON:
            sent = request.headers.get("Content-Type", "none")
            raise _RefusedError("media-type", 415, f"Content-Type {sent[:80]} is not allowed; allowed: {JSON}")
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise _RefusedError(
                "media-type", 415, f"Content-Encoding {encoding[:80]} is not allowed; send the body as it is"
            )
        if (request.content_length or 0) > self.edge.config.max_body_bytes:
            raise self._too_large()
        return endpoint

    def _too_large(self) -> "_RefusedError":
        most = self.edge.config.max_body_bytes
        return _RefusedError(
            "too-large", 413, f"the body is larger than {most} bytes, which is the most allowed", close=True
        )

    async def _body(self, request: web.BaseRequest, peer: Peer) -> bytes:
        edge, payload = self.edge, request.content
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport and not payload.is_eof():
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        edge.await_(peer, "body")
        body = bytearray()
        room = SMALL_BODY
        try:
            while chunk := await payload.readany():
                body += chunk
                if len(body) > edge.config.max_body_bytes:
                    raise self._too_large()
                while len(body) > room:
                    # Room is taken as the body comes, not as its head announces it: announcing costs nothing.
                    if not edge.bytes.take(peer.client, room):
                        raise _RefusedError(
                            "memory",
                            429,
                            "too many large bodies are on their way; call again",
                            close=True,
                            Retry_After="1",
                        )
                    room *= 2
        except (web.RequestPayloadError, ClientError, ConnectionError) as error:
            raise _RefusedError("malformed", 400, "the body is not what its head says", close=True) from error
        finally:
            if room > SMALL_BODY:
                edge.bytes.give_back(peer.client, room - SMALL_BODY)
        return bytes(body)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        connection = cast("Connection", protocol)
        self.edge.await_(connection.peer, "body")
        return web.BaseRequest(message, payload, protocol, writer, task, self._running)


class _RefusedError(Exception):
    """A call that is not decided: what is counted, and what is answered."""

    def __init__(self, reason: str, status: int, sentence: str, *, close: bool = False, **headers: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.status = status
        self.sentence = sentence
        self.close = close
        self.headers = headers
