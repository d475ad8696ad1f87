"""`noisegate webhook`: settings from file and flags, and a start that fails with one clear text."""

from pathlib import Path

import pytest

from noisegate.__main__ import main, parser
from noisegate.cli import webhook
from noisegate.webhook.faults import ConfigError
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
