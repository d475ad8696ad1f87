"""The connection to an API server, against servers that misbehave as a real one cannot be made to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from noisegate.cluster import connection
from noisegate.cluster.connection import MERGE_PATCH, ApiError, Connection, Write, in_cluster

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Connection]]


@pytest.fixture(name="account")
def _account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("one\n")
    return tmp_path


@pytest.fixture(name="serve")
async def _serve(account: Path) -> AsyncIterator[Serve]:
    authority = trustme.CA()
    (account / "ca.crt").write_bytes(authority.cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    runners: list[web.ServerRunner] = []
    opened: list[Connection] = []

    async def serve(handler: Handler) -> Connection:
        runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        opened.append(Connection(f"https://localhost:{port}", account, clock=lambda: clock[0]))
        return opened[-1]

    clock = [0.0]
    yield serve
    for one in opened:
        await one.close()
    for runner in runners:
        await runner.cleanup()


async def lines_of(conn: Connection) -> list[bytes]:
    """Return the lines of a watch."""
    return [line async for line in conn.watch("/things")]


async def test_it_says_who_it_is_and_reads_the_token_again(serve: Serve, account: Path) -> None:
    """A token that is no longer taken is read again, once, and the call repeated."""
    tokens: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        assert request.headers["User-Agent"] == "noisegate"
        return web.Response(status=200 if tokens[-1] == "Bearer two" else 401, text=str(request.url.query_string))

    conn = await serve(handler)
    (account / "token").write_text("two")
    assert await conn.get("/a", limit="5") == b"limit=5"
    (account / "token").write_text("one")
    assert await conn.get("/a") == b""
    conn._read_at = -1000.0
    with pytest.raises(ApiError) as refused:
        await conn.get("/a")
    assert refused.value.status == 401
    assert tokens == ["Bearer two", "Bearer two", "Bearer one", "Bearer one"]


async def test_an_expired_token_is_replaced_in_the_same_call(serve: Serve, account: Path) -> None:
    """The caller does not notice."""
    taken = ["one"]

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.headers["Authorization"] == f"Bearer {taken[0]}" else 401, text="x")

    conn = await serve(handler)
    assert await conn.get("/a") == b"x"
    taken[0] = "two"
    (account / "token").write_text("two")
    assert await conn.get("/a") == b"x"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"kind": "Status", "message": "it is forbidden", "code": 403}', "it is forbidden (403)"),
        ("{}", "no reason was given (403)"),
        ("<html>proxy</html>", "<html>proxy</html> (403)"),
        ("", "no reason was given (403)"),
    ],
)
async def test_what_the_api_server_said_is_told(serve: Serve, body: str, told: str) -> None:
    """A Status' message; else the beginning of whatever came."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=403, text=body)

    conn = await serve(handler)
    with pytest.raises(ApiError) as refused:
        await conn.get("/a")
    assert str(refused.value) == told


async def test_a_watch_gives_lines_however_they_come(serve: Serve) -> None:
    """Lines are put together from pieces; the first, empty one says that it has begun; half a line at the end is none."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in (b'{"a"', b": 1}\n\n{", b'"b": 2}\n{"c', b'": 3}\n{"half'):
            await answer.write(piece)
            await asyncio.sleep(0.01)
        return answer

    conn = await serve(handler)
    assert await lines_of(conn) == [b"", b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']


async def test_too_long_a_line_ends_the_watch(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not given away."""
    monkeypatch.setattr(connection, "LONGEST_LINE", 1 << 20)

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(40):
            await answer.write(b"x" * 65536)
        return answer

    conn = await serve(handler)
    with pytest.raises(ApiError, match="sent an event of more than 1 MiB"):
        await lines_of(conn)


async def test_a_connection_that_breaks_off_is_told(serve: Serve) -> None:
    """In the middle of a watch too."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"{}\n")
        assert request.transport is not None
        request.transport.abort()
        return answer

    conn = await serve(handler)
    with pytest.raises(ApiError, match="does not answer"):
        await lines_of(conn)


async def test_silence_is_a_dead_connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch without a bookmark for too long is given up."""
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.1)

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await asyncio.sleep(5)
        return answer

    conn = await serve(handler)
    with pytest.raises(ApiError, match="does not answer"):
        await lines_of(conn)


async def test_nobody_there_and_nothing_mounted(account: Path) -> None:
    """Which address, or which file."""
    (account / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    conn = Connection("https://127.0.0.1:9", account)
    with pytest.raises(ApiError, match=r"https://127\.0\.0\.1:9 does not answer: .*Connect call failed"):
        await conn.get("/a")
    await conn.close()
    with pytest.raises(ApiError, match="nowhere/token: cannot be read: No such file or directory"):
        await Connection("https://127.0.0.1:9", account / "nowhere").get("/a")


async def test_another_authority_is_another_session(serve: Serve, account: Path) -> None:
    """When the cluster's authority is replaced, the connection is made anew."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="x")

    conn = await serve(handler)
    assert await conn.get("/a") == b"x"
    (account / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    conn._read_at = -1000.0
    with pytest.raises(ApiError, match="certificate verify failed"):
        await conn.get("/a")


def test_a_token_is_sent_over_https_only(account: Path) -> None:
    """A plain address is refused before anything is sent."""
    with pytest.raises(ValueError, match="over https only"):
        Connection("http://localhost", account)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "https://10.0.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://[fd00::1]:6443"),
    ],
)
def test_the_address_in_a_cluster(environment: dict[str, str], url: str) -> None:
    """As every pod is told it."""
    assert in_cluster(environment) == url


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_write_is_sent_as_it_is_given(serve: Serve, method: Write) -> None:
    """Method, query, type and bytes arrive; what the API server made of it comes back, made (201) or changed (200)."""

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer one"
        told = f"{request.method} {request.path_qs} {request.headers['Content-Type']} ".encode()
        return web.Response(status=201 if request.method == "POST" else 200, body=told + await request.read())

    conn = await serve(handler)
    answer = await conn.send(method, "/things/a", b'{"a": null}', MERGE_PATCH, fieldManager="x")
    assert answer == f'{method} /things/a?fieldManager=x application/merge-patch+json {{"a": null}}'.encode()
    assert b" application/json {}" in await conn.send(method, "/things/a", b"{}")


async def test_a_write_with_an_expired_token_is_sent_again(serve: Serve, account: Path) -> None:
    """With its whole body, once."""
    bodies: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=200 if request.headers["Authorization"] == "Bearer two" else 401)

    conn = await serve(handler)
    await conn._renew()
    (account / "token").write_text("two")
    assert await conn.send("PATCH", "/a", b"body") == b""
    assert bodies == [b"body", b"body"]


@pytest.mark.parametrize("status", [202, 204, 403, 409, 422, 500])
async def test_a_write_that_was_not_done_is_told(serve: Serve, status: int) -> None:
    """Status and reason; what is only accepted for later is not done either."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="" if status == 204 else '{"message": "why"}')

    conn = await serve(handler)
    with pytest.raises(ApiError) as refused:
        await conn.send("POST", "/a", b"{}")
    assert refused.value.status == status
    assert refused.value.told == ("no reason was given" if status == 204 else "why")


async def test_a_write_has_an_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that drips byte by byte is given up too."""
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.3)

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.02)

    conn = await serve(handler)
    with pytest.raises(ApiError, match="does not answer") as refused:
        await conn.send("POST", "/a", b"{}")
    assert refused.value.status == 0
