"""`noisegate webhook`: settings from file and flags, a server that serves, a start that fails with one clear text."""

import json
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import builders
import pytest

from noisegate.__main__ import main, parser
from noisegate.certs.store import provide
from noisegate.cli import trial, webhook
from noisegate.service.faults import ConfigError
from noisegate.webhook.settings import Server


def settings_of(*arguments: str) -> Server:
    """Return the server's settings of a command line."""
    return webhook.settings_of(parser().parse_args(["webhook", *arguments])).server


def test_every_key_has_a_flag() -> None:
    """The flags are the keys of the server: block, all of them, and each tells its default."""
    keys = [field.alias or name for name, field in Server.model_fields.items()]

    assert [flag.key for flag in webhook.FLAGS] == keys
    for flag, field in zip(webhook.FLAGS, Server.model_fields.values(), strict=True):
        if field.default not in ("", ()) and flag.key != "max-body-bytes":
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert flag.about.endswith(f"(default: {default})")


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag takes the place of the file's key; a flag's path begins where the command runs, the file's at the file."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "server.yaml").write_text("server: {port: 443, cert: c.pem, key: k.pem, health-port: 81}")
    monkeypatch.chdir(tmp_path)

    server = settings_of(
        "--config", "etc/server.yaml", "--port", "0", "--cert", "mine.pem", "--client-ca", "/ca.pem",
        "--client-names", "a", "--client-names", "b", "--max-body-bytes", "1Mi", "--drain-seconds", "1.5",
        "--idle-seconds", "3", "--log-format", "json", "--binding-address", "127.0.0.1", "--processes", "2",
    )  # fmt: skip

    assert server == Server.model_construct(
        **{
            **Server().model_dump(),
            "port": 0,
            "cert": str(tmp_path / "mine.pem"),
            "key": "etc/k.pem",
            "health_port": 81,
            "client_ca": "/ca.pem",
            "client_names": ("a", "b"),
            "max_body_bytes": 1 << 20,
            "drain_seconds": 1.5,
            "idle_seconds": 3.0,
            "log_format": "json",
            "binding_address": "127.0.0.1",
            "processes": 2,
        }
    )


def test_what_is_allowed_can_be_said_by_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of two flags wins, and both win over the file, which keeps what they do not say."""
    path = tmp_path / "server.yaml"
    path.write_text(
        "{server: {cert: c, key: k}, policy: {enforcement: off, rdt: {classes: mine}, sriov: {strict: true}}}"
    )
    monkeypatch.chdir(tmp_path)
    command = ["webhook", "--config", str(path), "--enforcement", "required", "--rdt-classes", "classes.yaml"]

    policy = webhook.settings_of(parser().parse_args(command)).policy
    assert (policy.enforcement, policy.rdt.classes) == ("required", str(tmp_path / "classes.yaml"))
    assert policy.sriov.strict

    policy = webhook.settings_of(parser().parse_args([*command, "--enforcement=off"])).policy
    assert policy.enforcement == "off"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            [],
            "command line: server.cert: no certificate is given; the API server calls webhooks over TLS only "
            "(give --cert and --key; noisegate certs issue makes them)",
            id="no-certificate",
        ),
        pytest.param(
            ["--cert", "/c", "--key", "/k", "--port", "http"],
            'command line: server.port: "http": a whole number is needed',
            id="no-number",
        ),
        pytest.param(["--config", "/none"], "/none: cannot be read: No such file or directory", id="no-file"),
        pytest.param(
            ["--cert", "/c", "--key", "/k", "--mutations", "/none"],
            "/none: cannot be read: No such file or directory",
            id="no-rules",
        ),
    ],
)  # fmt: skip
def test_a_bad_start_is_one_clear_text(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    """What cannot be used is told in one line, with exit code 2 and no traceback."""
    code = main(["webhook", *arguments])

    assert (code, capsys.readouterr()) == (2, ("", f"noisegate webhook: {told}\n"))


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    """Where a file is given, the certificate is missing in it."""
    path = tmp_path / "server.yaml"
    path.write_text("server: {}")

    with pytest.raises(ConfigError, match=r"server\.yaml: server.cert: no certificate is given"):
        settings_of("--config", str(path))


@pytest.fixture(name="certs")
def _certs(tmp_path: Path) -> Path:
    """Return a directory of certificates for this machine."""
    provide(tmp_path / "certs", datetime.now(UTC), [trial.HOST], "kube-apiserver")
    return tmp_path / "certs"


def test_it_serves_until_it_is_asked_to_end(certs: Path) -> None:
    """The process serves over mutual TLS with the settings of its flags, and ends in good order on SIGTERM."""
    command = [
        sys.executable, "-m", "noisegate", "webhook", "--binding-address", trial.HOST, "--health-address", trial.HOST,
        "--port", "0", "--health-port", "0", "--shutdown-delay", "0", "--log-format", "json",
        "--cert", str(certs / "tls.crt"), "--key", str(certs / "tls.key"), "--client-ca", str(certs / "ca.crt"),
    ]  # fmt: skip
    secured = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    secured.load_cert_chain(certs / "client.crt", certs / "client.key")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:  # noqa: S603  (this very program)
        assert process.stderr is not None
        serving = json.loads(process.stderr.readline())
        server = trial.Server(serving["port"], serving["health_port"], secured)
        server.check_ready()
        response = server.ask(
            "mutate", builders.review(builders.pod(containers=[builders.container(resources=builders.cores(1))]))
        )
        server.close()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)

    assert (serving["event"], response["uid"], response["patchType"]) == ("serving", builders.UID, "JSONPatch")
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["draining", "ended"]
    assert process.returncode == 0


@pytest.mark.parametrize("what", ["port", "certificate"])
def test_what_the_server_cannot_use_is_told(certs: Path, what: str) -> None:
    """A port that is taken and a key that does not fit are one clear line each, with exit code 2."""
    with socket.create_server((trial.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        key = "client.key" if what == "certificate" else "tls.key"
        command = [
            sys.executable, "-m", "noisegate", "webhook", "--binding-address", trial.HOST, "--port", str(port),
            "--health-port", "0", "--cert", str(certs / "tls.crt"), "--key", str(certs / key),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)  # noqa: S603

    (line,) = done.stderr.decode().splitlines()
    told = f"cannot listen on {trial.HOST} port {port}: " if what == "port" else str(certs / "client.key")
    assert done.returncode == 2
    assert line.startswith("noisegate webhook: ")
    assert told in line


def test_a_live_catalogue_needs_an_api_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside a cluster its address must be given; the message says where."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = tmp_path / "server.yaml"
    config.write_text("server: {cert: a, key: b}\ncluster: {catalogue: [networks]}\n")
    assert main(["webhook", "--config", str(config)]) == 2
    assert capsys.readouterr().err == (
        "noisegate webhook: server.yaml: cluster.catalogue: there is no API server to ask: KUBERNETES_SERVICE_HOST is not set, "
        "so this is no pod (give cluster.apiServer)\n"
    )
    config.write_text("server: {cert: a, key: b}\ncluster: {catalogue: [networks], apiServer: 'http://x'}\n")
    assert main(["webhook", "--config", str(config)]) == 2
    assert "cluster.apiServer" in capsys.readouterr().err
