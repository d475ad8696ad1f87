"""Runs `noisegate` in a machine, in forks of one process that has imported all of it: emulated, the imports take ten seconds.

Stands alone there, with Python and noisegate. Each connection to its socket is one run:

    {"argv": ["node", "run"], "log": "/var/log/x.log"}   a line; empty: what it writes comes back
    -> its pid                                           a line
    -> {"code": 0, "out": N, "err": M}                   a line, at its end; code: below zero the signal that ended it
    -> N bytes of stdout, M bytes of stderr
"""

import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path

from noisegate.__main__ import main
from noisegate.enforcement import cleanup, daemon  # noqa: F401  (the commands import them when they run)

SOCKET = "/run/forker.sock"
MOST = 1 << 20
"""Bytes that come back of each output."""


def serve() -> None:
    """Run what comes, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listener:
        Path(SOCKET).unlink(missing_ok=True)
        listener.bind(SOCKET)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    with suppress(OSError):  # whoever asked need not wait for the end
                        answer(connection)
                    os._exit(0)


def answer(connection: socket.socket) -> None:
    """Run one command to its end."""
    lines = connection.makefile("rwb")
    question = json.loads(lines.readline())
    with ExitStack() as files:
        if question["log"]:
            log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            outputs = [log, log]
        else:
            outputs = [files.enter_context(tempfile.TemporaryFile()).fileno() for _ in range(2)]
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, output in enumerate(outputs, 1):
                os.dup2(output, number)
            connection.close()
            os._exit(run(question["argv"]))
        lines.write(b"%d\n" % pid)
        lines.flush()
        _, status = os.waitpid(pid, 0)
        written = [] if question["log"] else [os.pread(output, MOST, 0) for output in outputs]
        out, err = map(len, written or (b"", b""))
        end = {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err}
        lines.write(b"".join([json.dumps(end).encode(), b"\n", *written]))
        lines.flush()


def run(argv: list[str]) -> int:
    """Do what a process does whose program is noisegate; return its exit code."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  (as Python itself ends a process)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
