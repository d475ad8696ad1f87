"""The servers that `noisegate demo` starts, and calls as the API server would: HTTP/1.1 over mutual TLS, kept alive."""

import http.client
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20.0
"""For the servers to be ready; it takes about one on a quiet machine."""
CALL_SECONDS: Final = 10.0
"""For a call; the API server's own default."""


class TrialError(Exception):
    """The servers cannot be used; the text says why."""


class Server:
    """One server, and the connection to it.

    Args:
        port: TLS port.
        health_port: Plain HTTP port.
        secured: How to prove who we are, and whom to trust.

    Attributes:
        seconds: How long each call took.
    """

    def __init__(self, port: int, health_port: int, secured: ssl.SSLContext) -> None:
        self.port: Final = port
        self.health_port: Final = health_port
        self.seconds: Final[list[float]] = []
        self._connection: Final = http.client.HTTPSConnection(HOST, port, timeout=CALL_SECONDS, context=secured)

    def check_ready(self) -> None:
        """Ask for readiness, and connect.

        Raises:
            TrialError: The server is not ready.
        """
        health = http.client.HTTPConnection(HOST, self.health_port, timeout=CALL_SECONDS)
        try:
            health.request("GET", "/readyz")
            answer = health.getresponse()
            text = answer.read().decode().strip()
            if answer.status != 200:
                raise TrialError(f"the server is not ready: {text}")
            self._connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise TrialError(f"the server cannot be reached: {error}") from error
        finally:
            health.close()

    def ask(self, endpoint: str, body: bytes) -> dict[str, Any]:
        """Send an AdmissionReview; return the answer's `response`.

        Raises:
            TrialError: There is no answer, or none that the API server would understand.
        """
        start = time.perf_counter()
        try:
            self._connection.request("POST", f"/{endpoint}?timeout=10s", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TrialError(f"no answer to /{endpoint}: {error!r}") from error
        self.seconds.append(time.perf_counter() - start)
        if answer.status != 200:
            raise TrialError(f"/{endpoint} answered {answer.status}: {text.decode().strip()}")
        response: dict[str, Any] = json.loads(text)["response"]
        return response

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Servers:
    """The child process with a server for each file of settings.

    Args:
        certs: Directory of ca.crt, tls.crt, tls.key, client.crt and client.key.
        client: Name in the client certificate.
        files: Files of settings; an empty name stands for all defaults.
    """

    def __init__(self, certs: Path, client: str, files: Sequence[str]) -> None:
        self._certs: Final = certs
        self._files: Final = files
        self._log: Final = certs / "servers.log"
        self._command: Final = [
            sys.executable, "-m", "noisegate.cli.servers", "--certs", str(certs), "--client", client, "--", *files,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes]
        self._held: IO[bytes]
        self._told: IO[bytes]
        self._servers: Final[dict[str, Server]] = {}

    def __enter__(self) -> Self:
        """Start the process."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)  # noqa: S603  (this very program)
        self._process = process
        self._held = cast("IO[bytes]", process.stdin)
        self._told = cast("IO[bytes]", process.stdout)
        return self

    def reach(self) -> dict[str, Server]:
        """Wait until every server is ready; return them by their file of settings.

        Raises:
            TrialError: They did not start.
        """
        secured = ssl.create_default_context(cafile=str(self._certs / "ca.crt"))
        secured.load_cert_chain(self._certs / "client.crt", self._certs / "client.key")
        for _ in self._files:
            line = self._told.readline()
            if not line:
                raise TrialError(f"the server did not start:\n{self._log.read_text().strip()}")
            where = json.loads(line)
            self._servers[where["settings"]] = Server(where["port"], where["health_port"], secured)
        for server in self._servers.values():
            server.check_ready()
        return self._servers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the process in good order: it finishes its calls and goes."""
        for server in self._servers.values():
            server.close()
        self._held.close()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._told.close()
