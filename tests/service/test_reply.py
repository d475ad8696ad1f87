"""Answers as they are written."""

from noisegate.service.reply import Heads, plain, refusal


def test_ordinary_answer() -> None:
    """Head and body are one piece; the connection stays unless it is said that it ends."""
    heads = Heads()
    heads.date(784111777.0)
    assert heads.whole(b"{}", close=False) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: noisegate\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert heads.whole(b"", close=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: noisegate\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )


def test_plain_answer() -> None:
    """A sentence is plain text under its status."""
    assert plain(408, b"late\n", 784111777.0, close=True) == (
        b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\nServer: noisegate\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlate\n"
    )
    assert b"Connection" not in plain(400, b"", 0.0, close=False)


def test_refusal() -> None:
    """What a client sent may stand in the sentence, whatever characters it has."""
    made = refusal(405, "no \udcff", Allow="POST", Retry_After="1")
    assert (made.status, made.body) == (405, b"no \\udcff\n")
    assert (made.headers["Allow"], made.headers["Retry-After"]) == ("POST", "1")
    assert made.keep_alive is None
    assert refusal(413, "x", close=True).keep_alive is False
