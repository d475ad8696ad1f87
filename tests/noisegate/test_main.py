"""The command as a whole, as a process."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import noisegate
from noisegate.__main__ import COMMANDS, main, parser

ROOT = Path(noisegate.__file__).parents[1]


def run(*arguments: str, code: str = "", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run noisegate, or a piece of Python."""
    command = ["-c", code] if code else ["-m", "noisegate", *arguments]
    return subprocess.run(  # noqa: S603  (this very program)
        [sys.executable, *command], input=stdin, capture_output=True, cwd=ROOT, timeout=60, check=False
    )


def test_help_teaches() -> None:
    """The help says what is protected, names every command and shows an example of each."""
    done = run("--help")

    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert (
        "disk bandwidth, network bandwidth, cache and memory bandwidth (RDT), SR-IOV interfaces, exclusive cores"
        in text
    )
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        assert re.search(rf"\n    {name}\s", text)
        assert f"noisegate {name} " in text


def test_help_waits_for_nothing_heavy() -> None:
    """No library that is slow to import is imported for the help."""
    heavy = {"pydantic", "msgspec", "yaml", "aiohttp", "cryptography", "jsonpatch", "asyncio", "importlib.metadata"}
    code = (
        f"import sys; from noisegate.__main__ import parser; parser().format_help(); print({heavy} & set(sys.modules))"
    )

    assert run(code=code).stdout == b"set()\n"


@pytest.mark.parametrize("command", [command.__name__.rpartition(".")[2] for command in COMMANDS])
def test_each_command_teaches(command: str) -> None:
    """Each command's own help names it and stops."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])

    assert stopped.value.code == 0


def test_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the installed distribution."""
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])

    assert (stopped.value.code, capsys.readouterr().out) == (0, f"noisegate {version('noisegate')}\n")


def test_kubectl_calls_it_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a plugin of kubectl it tells its usage as one."""
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kubectl-noisegate"])

    assert parser().format_usage() == "usage: kubectl noisegate [-h] [--version] COMMAND ...\n"


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the usage is told and the exit code is 2."""
    with pytest.raises(SystemExit) as stopped:
        main([])

    assert stopped.value.code == 2
    assert "the following arguments are required: COMMAND" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    """A reader that has seen enough, as head, ends the command without a word, with SIGPIPE's exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "noisegate", "problems"],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command without a traceback, with SIGINT's exit code."""

    class Interrupted:
        class buffer:  # noqa: N801  (as sys.stdin has it)
            @staticmethod
            def read() -> bytes:
                """Do what Ctrl-C does while a command reads."""
                raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted)

    assert main(["check", "-"]) == 130
    assert capsys.readouterr() == ("", "")


def test_output_that_cannot_be_encoded_is_escaped() -> None:
    """A terminal without UTF-8 gets escapes, not an error."""
    pod = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wéb"}, "spec": {}}'.encode()
    command = [sys.executable, "-m", "noisegate", "check", "-"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    done = subprocess.run(command, input=pod, capture_output=True, cwd=ROOT, env=environ, check=False)  # noqa: S603

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"ok Pod default/w\\xe9b  <stdin>:1\n")
