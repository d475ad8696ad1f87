"""A thin connection to the API server: GET, watch and single writes, as a ServiceAccount, over aiohttp.

A program that serves calls needs no more of a client: importing kubernetes-asyncio costs 66 MB (measured, 36.1.0).
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod's ServiceAccount is mounted: token, ca.crt, namespace."""
TOKEN_SECONDS: Final = 60.0
"""The kubelet renews a mounted token in good time before it expires; client-go looks at it as often."""
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 30.0
"""For a call's next bytes."""
SEND_SECONDS: Final = 10.0
"""For a whole write, its connection and its answer included."""
SILENCE_SECONDS: Final = 180.0
"""For a watch's next line: the API server sends a bookmark about every minute, so a longer silence is a dead connection."""
LONGEST_LINE: Final = 16 << 20
"""Bytes of one event: an object is at most 3 MiB, and JSON may escape every byte of it."""
_PIECE: Final = 256 << 10
_GIVEN: Final = frozenset({200, 201})

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7396: null takes a member away, a list is replaced as a whole."""
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
"""Kubernetes' own: lists with a merge key are merged by it, such as a node's conditions by `type`."""
JSON_PATCH: Final = "application/json-patch+json"
"""RFC 6902."""
Write = Literal["POST", "PUT", "PATCH"]


class ApiError(Exception):
    """The API server did not give what was asked for.

    Attributes:
        status: HTTP status; 0: there was no answer.
        told: What it said, or why there was no answer.
    """

    def __init__(self, status: int, told: str) -> None:
        super().__init__(f"{told} ({status})" if status else told)
        self.status: Final = status
        self.told: Final = told


class _Call(NamedTuple):
    path: str
    params: Mapping[str, str]
    limits: aiohttp.ClientTimeout
    method: str = "GET"
    body: bytes | None = None
    headers: Mapping[str, str] = {}


class _Status(msgspec.Struct):
    message: str = ""
    code: int = 0


_decode_status: Final = msgspec.json.Decoder(_Status).decode


def in_cluster(environment: Mapping[str, str]) -> str:
    """Return the API server's address as every pod is given it; empty outside a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


class Connection:
    """Speaks to one API server. To be used in one event loop; opened with the first call.

    Args:
        url: Its address, `https://host:port`.
        account: Folder of `token` and `ca.crt`, as they are mounted into pods. They are read again when they change.
        agent: What we call ourselves.
        clock: Seconds that never go back.
    """

    def __init__(
        self, url: str, account: Path, agent: str = "noisegate", clock: Callable[[], float] = time.monotonic
    ) -> None:
        if urlsplit(url).scheme != "https":
            raise ValueError(f"{url}: a token is sent over https only")
        self.url: Final = url.rstrip("/")
        self._account: Final = account
        self._agent: Final = agent
        self._clock: Final = clock
        self._token = ""
        self._read_at = -TOKEN_SECONDS
        self._authority = b""
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, **params: str) -> bytes:
        """Return the body of an object or a list.

        Raises:
            ApiError: There was no answer, or none that gives it.
        """
        patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        async with self._asked(_Call(path, params, patience)) as answer:
            return await answer.read()

    async def send(self, method: Write, path: str, body: bytes, content_type: str = JSON, **params: str) -> bytes:
        """Write an object; return what the API server made of it.

        Args:
            method: POST makes one below the path of its kind, PUT and PATCH change the one at the path.
            path: Of the kind in its namespace, or of the object.
            body: JSON.
            content_type: What the body is: the object itself, or one of the patches above.
            params: Of the query, such as `fieldManager`.

        Raises:
            ApiError: There was no answer within `SEND_SECONDS`, or another than 200 and 201. Without an answer (status 0)
                it may have been written all the same.
        """
        limits = aiohttp.ClientTimeout(total=SEND_SECONDS, sock_connect=CONNECT_SECONDS)
        async with self._asked(_Call(path, params, limits, method, body, {"Content-Type": content_type})) as answer:
            return await answer.read()

    async def watch(self, path: str, **params: str) -> AsyncIterator[bytes]:
        """Yield the events of a watch, a line each, until the API server ends it; first an empty line: it has begun.

        Raises:
            ApiError: It did not begin, broke off, or was silent for too long.
        """
        silence = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        async with self._asked(_Call(path, {"watch": "true", **params}, silence)) as answer:
            yield b""
            rest = b""
            async for piece in answer.content.iter_chunked(_PIECE):
                *lines, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
                for line in lines:
                    if line:
                        yield line
                if len(rest) > LONGEST_LINE:
                    raise ApiError(0, f"{self.url} sent an event of more than {LONGEST_LINE >> 20} MiB")

    async def close(self) -> None:
        """Close everything; the next call opens it again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def _asked(self, call: _Call) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            answer = await self._ask(call)
            if answer.status == 401:
                # The token was renewed or revoked since it was read.
                answer.release()
                self._read_at = -TOKEN_SECONDS
                answer = await self._ask(call)
            async with answer:
                if answer.status not in _GIVEN:
                    raise ApiError(answer.status, _told(await answer.content.read(_PIECE)))
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # aiohttp's own text names objects of ours.
            reason = getattr(error, "os_error", error)
            raise ApiError(0, f"{self.url} does not answer: {str(reason) or type(reason).__name__}") from error

    async def _ask(self, call: _Call) -> aiohttp.ClientResponse:
        await self._renew()
        session = self._session
        if session is None:
            # Compressing what goes over a node's network costs both sides more than sending it.
            headers = {"User-Agent": self._agent, "Accept": JSON, "Accept-Encoding": "identity"}
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self._authority.decode()), limit=0)
            session = self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return await session.request(
            call.method,
            self.url + call.path,
            params=call.params,
            data=call.body,
            timeout=call.limits,
            headers={"Authorization": f"Bearer {self._token}", **call.headers},
        )

    async def _renew(self) -> None:
        now = self._clock()
        if now - self._read_at < TOKEN_SECONDS:
            return
        try:
            token, authority = await asyncio.to_thread(self._read)
        except OSError as error:
            raise ApiError(0, f"{error.filename}: cannot be read: {error.strerror}") from error
        if authority != self._authority:
            await self.close()
        self._token, self._authority, self._read_at = token, authority, now

    def _read(self) -> tuple[str, bytes]:
        return (self._account / "token").read_text().strip(), (self._account / "ca.crt").read_bytes()


def _told(body: bytes) -> str:
    try:
        return _decode_status(body).message or "no reason was given"
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace").strip() or "no reason was given"
