"""Carries out what a test asks for, inside the machine; stands alone, with Python's own library.

A connection carries questions one after another, each a line of JSON and then bytes; so are the answers:

    {"ask": "run", "argv": [...], "timeout": 60, "size": N}  N bytes of stdin
    -> {"code": 0, "late": false, "out": N, "err": M}        N bytes of stdout, M bytes of stderr
    {"ask": "read", "paths": [...]}                          what files say, all at one moment
    -> {"at": seconds, "texts": [...], "errors": [...]}      CLOCK_MONOTONIC; errno or 0 for each path
    {"ask": "write", "path": ..., "text": ...}               one write(2), as kernel files want it
    -> {"error": errno or 0}
    {"ask": "connect", "path": ...}                          to a unix socket: what follows is its connection
    -> {"error": errno or 0}
"""

import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PORT = 7000


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer until the other side closes."""
        for line in self.rfile:
            question = json.loads(line)
            given = self.rfile.read(question.get("size", 0))
            match question["ask"]:
                case "run":
                    answer, *following = run(question["argv"], question["timeout"], given)
                case "read":
                    answer, following = read(question["paths"]), []
                case "write":
                    answer, following = {"error": write(question["path"], question["text"])}, []
                case _:
                    self.connect(question["path"])
                    return
            self.wfile.write(b"".join([json.dumps(answer).encode(), b"\n", *following]))

    def connect(self, path: str) -> None:
        """Become a connection to a unix socket."""
        with socket.socket(socket.AF_UNIX) as there:
            error = there.connect_ex(path)
            self.wfile.write(json.dumps({"error": error}).encode() + b"\n")
            if error == 0:
                back = threading.Thread(target=copy, args=(there, self.connection), daemon=True)
                back.start()
                copy(self.connection, there)
                back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes until it ends, and its end too."""
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def run(argv: list[str], timeout: float, given: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Run a command in a session of its own, which is killed as a whole when it is late."""
    pipe = subprocess.PIPE
    late = False
    try:
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        told = f"{argv[0]}: {error.strerror}".encode()
        return {"code": 127, "late": False, "out": 0, "err": len(told)}, b"", told
    try:
        out, err = process.communicate(given, timeout)
    except subprocess.TimeoutExpired:
        late = True
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return {"code": process.returncode, "late": late, "out": len(out), "err": len(err)}, out, err


def read(paths: list[str]) -> dict[str, Any]:
    """Read files; the time is that of the first."""
    at = time.monotonic()
    texts, errors = [], []
    for path in paths:
        try:
            texts.append(Path(path).read_text(errors="surrogateescape"))
            errors.append(0)
        except OSError as error:
            texts.append("")
            errors.append(error.errno or 0)
    return {"at": at, "texts": texts, "errors": errors}


def write(path: str, text: str) -> int:
    """Write a text in one call; return the errno."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        return error.errno or 0
    return 0


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("", PORT), Handler) as server:
        # Nobody may connect before: QEMU's network answers a SYN that came too early only after ten seconds.
        Path("/dev/console").write_text("agent listens\n")
        server.serve_forever()
