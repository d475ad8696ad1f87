"""What every call passes, whichever way it came in: who may call, how much is borne, the decision, the bookkeeping.

connection.Express    an ordinary call, whole or in pieces: answered in the very callback that brought its last byte
connection.Connection everything else, by aiohttp's web.Server
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, cast

from noisegate.service.log import Level, Log
from noisegate.service.reply import Heads, plain
from noisegate.webhook import tls
from noisegate.webhook.metrics import Endpoint, Metrics
from noisegate.webhook.review import Answer
from noisegate.webhook.serverconfig import ServerConfig
from noisegate.webhook.share import Share
from noisegate.webhook.tls import Tls

Decide = Callable[[str, bytes], Answer]
"""Takes the endpoint's name and the body."""
Prefetch = Callable[[bytes], Awaitable[None] | None]
"""Makes sure that what a body's decision looks up is known, as far as it can be. Whoever returns None at once says that
nothing must be waited for, and the call is answered without a detour."""

CLOSING_SECONDS: Final = 2.0
"""Seconds for a client to say good-bye in TLS; then the connection is cut."""
_FAILED: Final = Answer(500, b"noisegate failed on this call by its own fault; its log says why\n", "errored")


class Peer:
    """One connection: who is at its other end, and what it waits for.

    Attributes:
        transport: The connection.
        address: IP address of the other end.
        client: Who it is, for fairness: the name in its certificate, else the address.
        refused: Why it is not let in; else empty.
        client_ca: The authorities its certificate was checked against.
        waits: What the connection waits for.
        deadline: When that has lasted too long, by the loop's clock.
    """

    __slots__ = ("address", "client", "client_ca", "deadline", "refused", "transport", "waits")

    def __init__(
        self, transport: asyncio.Transport, address: str, client: str, refused: str, client_ca: bytes | None
    ) -> None:
        self.transport: Final = transport
        self.address: Final = address
        self.client: Final = client
        self.refused: Final = refused
        self.client_ca: Final = client_ca
        self.waits: Literal["call", "head", "body", "decision", "reader", "end"] = "call"
        self.deadline = math.inf


class Edge:
    """The server between its connections and its decision.

    Args:
        config: What is borne.
        decide: The decision.
        prefetch: What comes before it; None where everything is known.
        metrics: Where calls are counted.
        log: Where events are told.
    """

    def __init__(
        self, config: ServerConfig, decide: Decide, prefetch: Prefetch | None, metrics: Metrics, log: Log
    ) -> None:
        self.config: Final = config
        self.prefetch: Final = prefetch
        self.metrics: Final = metrics
        self.log: Final = log
        self.endpoints: Final = {f"/{name}": endpoint for name, endpoint in metrics.endpoints.items()}
        self.heads: Final = Heads()
        self.calls: Final = Share(config.max_in_flight)
        self.bytes: Final = Share(config.max_buffered_bytes)
        self.connections: Final = Share(config.max_connections)
        self.peers: Final[set[Peer]] = set()
        self.tls: Tls | None = None
        """What new connections are secured with; swapped whole."""
        self.draining = False
        self._decide: Final = decide
        self._clock: Final = asyncio.get_running_loop().time
        self.heads.date(time.time())

    def welcome(self, transport: asyncio.Transport, address: str, secured: Tls | None) -> Peer:
        """Take up a connection: find out, once, who it is and whether it is let in."""
        certificate = cast("Mapping[str, object]", transport.get_extra_info("peercert") or {})
        names = tls.client_names(certificate)
        client = min((name for name in names if ":" in name), default=address)
        refused = tls.stranger(certificate, self.config.client_names)
        peer = Peer(transport, address, client, refused, secured.client_ca if secured else None)
        self.peers.add(peer)
        self.rest(peer)
        return peer

    def goodbye(self, peer: Peer) -> None:
        """Let a connection that is gone go; tell if it went in the middle of something."""
        self.peers.discard(peer)
        self.connections.give_back(peer.address)
        if peer.waits in {"head", "body"}:
            self.metrics.refused["incomplete"]()
            self.log.limited(
                "refused", reason="incomplete", client=peer.address, detail=f"left within the {peer.waits}"
            )

    def rest(self, peer: Peer) -> None:
        """Note that a connection waits for its next call."""
        peer.waits = "call"
        peer.deadline = self._clock() + self.config.idle_seconds

    def await_(self, peer: Peer, what: Literal["head", "body", "reader"]) -> None:
        """Note what a connection waits for, and until when."""
        config = self.config
        seconds = {"head": config.header_seconds, "body": config.body_seconds, "reader": config.answer_seconds}
        peer.waits = what
        peer.deadline = self._clock() + seconds[what]

    def last_answer(self, peer: Peer) -> bool:
        """Tell whether the connection ends with this answer: we are leaving, or it was let in by other authorities."""
        if self.draining:
            return True
        secured = self.tls
        return secured is not None and secured.client_ca != peer.client_ca

    def look_up(self, body: bytes) -> Awaitable[None] | None:
        """Begin the look-ups before a decision; return what must be waited for, if anything must."""
        if self.prefetch is None:
            return None
        try:
            return self.prefetch(body)
        except Exception as error:  # noqa: BLE001  (what is not known is not known: that is for the decision to say)
            self._not_known(error)
            return None

    async def looked_up(self, peer: Peer, wait: Awaitable[None]) -> None:
        """Wait for look-ups, for a while."""
        peer.waits, peer.deadline = "decision", math.inf
        try:
            async with asyncio.timeout(self.config.prefetch_seconds):
                await wait
        except Exception as error:  # noqa: BLE001  (as above)
            self._not_known(error)

    def decide(self, endpoint: Endpoint, body: bytes, began: float) -> Answer:
        """Decide, and count.

        Args:
            endpoint: Where the call came in.
            body: The AdmissionReview.
            began: When, by `time.perf_counter`.
        """
        try:
            answer = self._decide(endpoint.name, body)
        except Exception as error:  # noqa: BLE001  (whatever a decision fails on, the next call must find the server well)
            self.metrics.failures.inc()
            self.log.fault("failed", cause=error, endpoint=endpoint.name)
            answer = _FAILED
        endpoint.observe(time.perf_counter() - began)
        endpoint.count[answer.result]()
        for code in answer.codes:
            self.metrics.problem(code)
        if answer.log is not None:
            level: Level = "error" if answer.result == "errored" else "warning"
            self.log.line(level, str(answer.log.get("event", answer.result)), answer.log)
        return answer

    def refuse(self, peer: Peer, reason: str, status: int, detail: str, path: str = "") -> None:
        """Count and tell a call that never came to a decision."""
        self.metrics.refused[reason]()
        endpoint = self.endpoints.get(path.partition("?")[0])
        if endpoint is not None:
            endpoint.count["refused"]()
        self.log.limited("refused", reason=reason, status=status, client=peer.client, path=path, detail=detail)

    def written(self, answer: Answer, *, close: bool) -> bytes:
        """Return an answer as it is written."""
        if answer.status == 200:
            return self.heads.whole(answer.body, close=close)
        return plain(answer.status, answer.body, time.time(), close=close)

    def sweep(self) -> None:
        """End what has lasted too long, and bring the clock of the answers up to date. Called every second or so."""
        self.heads.date(time.time())
        self.gauge()
        now = self._clock()
        for peer in [peer for peer in self.peers if peer.deadline <= now]:
            self._end(peer)

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.in_flight.set(self.calls.taken)
        self.metrics.buffered.set(self.bytes.taken)
        self.metrics.connections.set(len(self.peers))

    def end_idle(self, quiet: float) -> None:
        """Close the connections that have waited for a call for a time, in seconds."""
        since = self._clock() + self.config.idle_seconds - quiet
        for peer in [peer for peer in self.peers if peer.waits == "call" and peer.deadline <= since]:
            self.close(peer)

    def abort(self) -> int:
        """Cut all connections; return how many there were."""
        for peer in self.peers:
            peer.transport.abort()
        return len(self.peers)

    def close(self, peer: Peer) -> None:
        """Close a connection when what was written has gone out; cut it if that takes long."""
        peer.waits = "end"
        peer.deadline = self._clock() + CLOSING_SECONDS
        peer.transport.close()

    def _not_known(self, error: Exception) -> None:
        self.metrics.prefetch_failures.inc()
        self.log.fault("prefetch-failed", cause=error)

    def _end(self, peer: Peer) -> None:
        waits = peer.waits
        if waits in {"head", "body"}:
            seconds = self.config.header_seconds if waits == "head" else self.config.body_seconds
            sentence = f"the {waits} of the call took longer than {seconds:g} seconds"
            self.refuse(peer, f"slow-{waits}", 408, sentence)
            peer.transport.write(plain(408, f"{sentence}\n".encode(), time.time(), close=True))
            self.close(peer)
        elif waits == "reader":
            self.refuse(
                peer, "slow-client", 0, f"did not take its answer within {self.config.answer_seconds:g} seconds"
            )
            peer.deadline = math.inf
            peer.transport.abort()
        elif waits == "end":
            peer.deadline = math.inf
            peer.transport.abort()
        else:
            self.close(peer)
