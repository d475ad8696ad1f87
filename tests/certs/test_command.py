import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from noisegate.certs.pair import Pair
from noisegate.certs.store import Store
from noisegate.cli import certs

DAY = timedelta(days=1)

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], now: datetime) -> Command:
    """Run `noisegate certs ...` at a time; return the exit code and the two outputs."""

    def run(*words: str | Path, after: timedelta = timedelta()) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser(prog="noisegate")
        certs.add_parser(parser.add_subparsers(required=True))
        try:
            args = parser.parse_args(["certs", *map(str, words)])
        except SystemExit as left:
            code = left.code
        else:
            args.clock = lambda: now + after
            code = args.run(args)
        assert isinstance(code, int)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def here(command: Command, tmp_path: Path) -> Path:
    """A directory with an authority, a serving and a client pair."""
    directory = tmp_path / "certs"
    code, _, _ = command("issue", directory, "--service", "gate.sys", "--name", "127.0.0.1", "--client", "c")
    assert code == 0
    return directory


def subject(directory: Path, command: Command) -> str:
    """Return the name of the authority that signs."""
    _, out, _ = command("show", directory, "-o", "json")
    return str(json.loads(out)["certificates"][0]["subject"])


def test_issue(command: Command, tmp_path: Path) -> None:
    """Issue tells what it made."""
    directory = tmp_path / "certs"
    code, out, err = command("issue", directory, "--service", "gate.sys", "--name", "127.0.0.1", "--life", "90d")
    names = "gate, gate.sys, gate.sys.svc, gate.sys.svc.cluster.local, 127.0.0.1"
    assert (code, err) == (0, "")
    assert out == (
        f"ca made: {subject(directory, command)}, ECDSA P-256, valid until 2036-02-27T12:00:00Z\n"
        f"tls issued: CN=gate,O=noisegate, ECDSA P-256 for {names}, valid until 2026-05-30T12:00:00Z\n"
    )
    code, out, _ = command("issue", directory, "--client", "c")
    assert (code, [line.split()[:2] for line in out.splitlines()]) == (0, [["ca", "left:"], ["client", "issued:"]])
    code, _, err = command("issue", directory, "--client", "c")
    expected = (
        f"noisegate certs issue: {directory}/client.crt: is there already; allowed: renewing it "
        "(noisegate certs renew), or issuing with --replace\n"
    )
    assert (code, err) == (2, expected)
    assert command("issue", directory, "--client", "c", "--replace", "--rsa", "3072")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "nothing to issue; allowed: --service, --name or --client, see --help", id="nothing"),
        pytest.param(
            ["--name", "a", "--rsa", "2048"],
            "RSA key size 2048 is not allowed; allowed: 3072 to 8192 bits",
            id="rsa-2048",
        ),
        pytest.param(
            ["--name", "a b"],
            'name "a b" is neither a DNS name nor an IP address; allowed: letters, digits and hyphens between dots, '
            "*. at the start, xn-- for other scripts, such as localhost or 127.0.0.1",
            id="space",
        ),
        pytest.param(
            ["--service", "gate"],
            'service "gate" is not NAME.NAMESPACE; allowed: such as noisegate.noisegate-system',
            id="service",
        ),
        pytest.param(
            ["--client", ""],
            'client name "" is not allowed; allowed: 1 to 64 printable characters without spaces, '
            "such as kube-apiserver",
            id="client",
        ),
    ],
)
def test_issue_of_what_cannot_be(command: Command, tmp_path: Path, words: list[str], message: str) -> None:
    """Bad input is refused with what is allowed, and leaves nothing behind."""
    code, out, err = command("issue", tmp_path / "certs", *words)
    assert (code, out, err) == (2, "", f"noisegate certs issue: {message}\n")
    assert not (tmp_path / "certs").exists()


@pytest.mark.parametrize("life", ["=-1d", "=0d", "=1", "=d", "=101y", "=1.5d", "="])
def test_bad_life(command: Command, tmp_path: Path, life: str) -> None:
    """A life that is none is a usage error."""
    code, _, err = command("issue", tmp_path, "--name", "a", f"--life{life}")
    allowed = "allowed: 1h to 100y, as hours (h), days (d) or years (y)"
    assert code == 2
    assert err.endswith(f'error: argument --life: life "{life[1:]}" is not allowed; {allowed}\n')


def test_show(command: Command, here: Path) -> None:
    """The table says of each certificate what matters, and what is due."""
    code, out, err = command("show", here, after=300 * DAY)
    table = [line.split("  ") for line in out.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert (code, err) == (0, "")
    assert rows == [
        ["NAME", "KEY", "PURPOSE", "VALID UNTIL", "USED", "RENEW FROM", "SUBJECT", "NAMES"],
        ["ca", "ECDSA P-256", "CA", "2036-02-27T12:00:00Z", "8%", "2032-10-28T19:58:20Z", rows[1][6], "-"],
        [
            *["tls", "ECDSA P-256", "serverAuth", "2027-03-01T12:00:00Z", "82%", "2026-10-30T19:58:20Z (now)"],
            *["CN=gate,O=noisegate", "gate gate.sys gate.sys.svc gate.sys.svc.cluster.local 127.0.0.1"],
        ],
        [
            *["client", "ECDSA P-256", "clientAuth", "2027-03-01T12:00:00Z", "82%", "2026-10-30T19:58:20Z (now)"],
            *["CN=c", "c"],
        ],
    ]


def test_show_json(command: Command, here: Path) -> None:
    """JSON holds the same, whole, for a directory and for one file."""
    _, out, _ = command("show", here, "-o", "json")
    ca, tls, client = json.loads(out)["certificates"]
    assert tls == {
        "name": "tls",
        "subject": "CN=gate,O=noisegate",
        "issuer": ca["subject"],
        "serial": tls["serial"],
        "names": ["gate", "gate.sys", "gate.sys.svc", "gate.sys.svc.cluster.local", "127.0.0.1"],
        "key": "ECDSA P-256",
        "purposes": ["serverAuth"],
        "authority": False,
        "notBefore": "2026-03-01T11:55:00Z",
        "notAfter": "2027-03-01T12:00:00Z",
        "used": 0.0,
        "renewFrom": "2026-10-30T19:58:20Z",
        "due": False,
        "sha256": tls["sha256"],
    }
    assert (ca["authority"], client["purposes"]) == (True, ["clientAuth"])
    code, out, _ = command("show", here / "tls.crt", "-o", "json")
    assert (code, json.loads(out)["certificates"]) == (0, [tls | {"name": "tls.crt"}])


def test_show_of_what_cannot_be_read(command: Command, tmp_path: Path) -> None:
    """What cannot be read is told with its file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pem").write_text("no certificate")
    table = {
        "empty": "empty: holds no certificates; allowed: a directory with ca.crt, tls.crt, ...",
        "none": "none: cannot be read: No such file or directory",
        "bad.pem": "bad.pem: holds no readable certificate; allowed: one or more blocks of PEM, "
        "-----BEGIN CERTIFICATE-----",
    }
    for name, message in table.items():
        assert command("show", tmp_path / name) == (2, "", f"noisegate certs show: {tmp_path}/{message}\n")


def test_show_of_a_file_that_fails(command: Command) -> None:
    """An error in reading a file is told. Address 0 of a process is never mapped, so reading it fails for root too."""
    expected = "noisegate certs show: /proc/self/mem: cannot be read: Input/output error\n"
    assert command("show", "/proc/self/mem") == (2, "", expected)


def test_verify(command: Command, here: Path) -> None:
    """Good pairs are told to be good; what is due is told too and is no failure."""
    assert command("verify", here, "--name", "gate.sys.svc") == (0, "ca: good\ntls: good\nclient: good\n", "")
    late = "good, past two thirds of its life: renew it"
    assert command("verify", here, after=300 * DAY) == (0, f"ca: good\ntls: {late}\nclient: {late}\n", "")


def test_verify_finds_faults(command: Command, here: Path) -> None:
    """Every fault is told and the exit code is 1, as text and as JSON."""
    expired = "it expired at 2027-03-01T12:00:00Z; it is now 2027-03-06T12:00:00Z"
    names = "gate, gate.sys, gate.sys.svc, gate.sys.svc.cluster.local, 127.0.0.1"
    other = f"it is not for a.b; it is for: {names}"
    code, out, err = command("verify", here, "--name", "a.b", after=370 * DAY)
    assert (code, err) == (1, "")
    assert out == f"ca: good\ntls: BAD\n  {expired}\n  {other}\nclient: BAD\n  {expired}\n"
    code, out, _ = command("verify", here, "--name", "a.b", "-o", "json", after=370 * DAY)
    assert code == 1
    assert json.loads(out) == {
        "results": [
            {"name": "ca", "good": True, "due": False, "reasons": []},
            {"name": "tls", "good": False, "due": True, "reasons": [expired, other]},
            {"name": "client", "good": False, "due": True, "reasons": [expired]},
        ]
    }


def test_verify_of_what_cannot_be_read(command: Command, here: Path, tmp_path: Path) -> None:
    """What cannot be checked at all is an error of input."""
    start = "noisegate certs verify:"
    code, _, err = command("verify", tmp_path)
    message = "is missing; it is needed to check the others against"
    assert (code, err) == (2, f"{start} {tmp_path}/ca.crt: {message}\n")
    code, _, err = command("verify", here, "--name", "a b")
    assert (code, err.partition(":")[0]) == (2, "noisegate certs verify")
    assert err.startswith(f'{start} name "a b" is neither a DNS name')
    kept = Store(here)
    kept.update(lambda pairs: (pairs | {"tls": Pair(b"junk", b"")}, []))  # type: ignore[operator]
    code, _, err = command("verify", here)
    assert (code, err.partition(" holds")[0]) == (2, f"{start} {here}/tls.crt:")
    only = tmp_path / "only-client"
    command("issue", only, "--client", "c")
    code, _, err = command("verify", only, "--name", "a")
    assert (code, err) == (2, f"{start} {only}/tls.crt: is missing; --name needs a serving certificate\n")


def test_renew(command: Command, here: Path) -> None:
    """Renew replaces what is due, tells it, and tells what it left and why."""
    progress = "left: 0% of its life is over, to be renewed from 2026-10-30T19:58:20Z"
    ca = "ca left: 0% of its life is over, to be renewed from 2032-10-28T19:58:20Z\n"
    assert command("renew", here) == (0, f"tls {progress}\nclient {progress}\n{ca}", "")
    before = Store(here).read()
    code, out, _ = command("renew", here, after=300 * DAY)
    assert (code, [line.split(":")[0] for line in out.splitlines()]) == (
        0,
        ["tls renewed", "client renewed", "ca left"],
    )
    after = Store(here).read()
    assert [stem for stem in before if before[stem] == after[stem]] == ["ca"]
    code, out, _ = command("renew", here, "--force", "--life", "12h")
    assert (code, out.splitlines()[1]) == (
        0,
        "client renewed: CN=c, ECDSA P-256 for c, valid until 2026-03-02T00:00:00Z",
    )


def test_renew_of_the_authority(command: Command, here: Path) -> None:
    """The three steps: each tells what must be done with caBundle, and the last is refused before the second."""
    earlier = subject(here, command)
    code, out, _ = command("renew", here, "--ca")
    progress = "0% of its life is over, to be renewed from 2032-10-28T19:58:20Z"
    assert (code, out) == (0, f"ca left: {progress}\n")
    code, out, _ = command("renew", here, "--ca", "--force")
    assert code == 0
    assert out.startswith(f"ca renewed: {subject(here, command)}, ")
    assert out.endswith(certs.AFTER_NEW_CA.format(directory=here))
    assert subject(here, command) != earlier
    _, out, _ = command("show", here, "-o", "json")
    assert [row["name"] for row in json.loads(out)["certificates"]] == ["ca", "ca[1]", "tls", "client"]
    code, _, err = command("renew", here, "--drop-old-ca")
    assert (code, "signed by an earlier authority" in err) == (2, True)
    assert command("renew", here, "--force")[0] == 0
    code, out, _ = command("renew", here, "--drop-old-ca")
    assert (code, out) == (
        0,
        "ca narrowed: 1 earlier authorities taken out of ca.crt\n" + certs.AFTER_DROPPED_CA.format(directory=here),
    )
    assert command("verify", here)[0] == 0


def test_renew_of_nothing(command: Command, tmp_path: Path) -> None:
    """A directory that is not there is not made."""
    code, _, err = command("renew", tmp_path / "none")
    assert (code, err) == (2, f"noisegate certs renew: {tmp_path}/none: cannot be written: No such file or directory\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("action", ["issue", "show", "verify", "renew"])
def test_help_teaches(command: Command, action: str) -> None:
    """Every sub-command's help has an example."""
    code, out, _ = command(action, "--help")
    assert code == 0
    assert "example" in out
    assert f"  noisegate certs {action} DIR" in out


def test_no_messages_hold_keys(command: Command, here: Path) -> None:
    """Whatever is printed, no private key is in it."""
    keys = [pair.key.decode().splitlines()[1] for pair in Store(here).read().values()]
    for words in (["show", here], ["show", here, "-o", "json"], ["verify", here], ["renew", here, "--force"]):
        _, out, err = command(*words)
        assert not [key for key in keys if key in out + err]
        assert "PRIVATE KEY" not in out + err
    (here.parent / "key.pem").write_bytes(Store(here).read()["tls"].key)
    _, out, err = command("show", here.parent / "key.pem")
    assert "PRIVATE" not in out + err


def test_import_is_light() -> None:
    """The parser is made without `cryptography`, so that `noisegate --help` stays fast."""
    script = (
        "import argparse, sys; from noisegate.cli import certs; "
        "certs.add_parser(argparse.ArgumentParser().add_subparsers()); "
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603


def test_the_clock_is_utc() -> None:
    """Without a test's clock, the time is that of the machine, aware."""
    assert certs._now().tzinfo is not None
