"""server.yaml."""

import ast
import inspect
from typing import Any

import pytest

from noisegate.isolation import policy
from noisegate.isolation.policy import DEFAULT_POLICY
from noisegate.service.faults import ConfigError
from noisegate.webhook import settings
from noisegate.webhook.settings import Settings

ORIGINAL = """
server:
  binding-address: "0.0.0.0"
  port: 8443
  cert: "/etc/ssl/cert.pem"
  key:  "/etc/ssl/key.pem"
  mutations: "/etc/webhook/mutations.yaml"
"""


def _told(text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        Settings.load(text, "etc/server.yaml", overrides)
    return str(error.value).splitlines()


def test_the_original_s_file_works_unchanged() -> None:
    """Its five keys mean what they meant, all else is at its default."""
    loaded = Settings.load(ORIGINAL, "/etc/webhook/server.yaml")
    assert loaded.server.model_dump(exclude_defaults=True) == {
        "cert": "/etc/ssl/cert.pem",
        "key": "/etc/ssl/key.pem",
        "mutations": "/etc/webhook/mutations.yaml",
    }
    assert (loaded.policy, loaded.catalogue) == (DEFAULT_POLICY, settings.CatalogueFiles())


def test_the_defaults_are_the_promised_ones() -> None:
    """The operator's guide promises these values."""
    assert Settings.load("", "server.yaml").model_dump(by_alias=True, exclude={"policy"}) == {
        "server": {
            "binding-address": "0.0.0.0",
            "port": 8443,
            "cert": "",
            "key": "",
            "mutations": "",
            "client-ca": "",
            "client-names": (),
            "health-address": "0.0.0.0",
            "health-port": 8080,
            "processes": 1,
            "max-in-flight": 256,
            "max-body-bytes": 7340032,
            "handshake-seconds": 5.0,
            "header-seconds": 5.0,
            "body-seconds": 10.0,
            "idle-seconds": 120.0,
            "shutdown-delay": 5.0,
            "drain-seconds": 20.0,
            "poll-seconds": 2.0,
            "log-level": "info",
            "log-format": "text",
        },
        "catalogue": {"files": (), "complete": ()},
        "cluster": {"catalogue": (), "apiServer": "", "account": "/var/run/secrets/kubernetes.io/serviceaccount"},
    }


@pytest.mark.parametrize("module", [settings, policy], ids=["settings", "policy"])
def test_every_setting_is_explained(module: Any) -> None:
    """Each field of each group of settings is followed by a text."""
    for group in ast.parse(inspect.getsource(module)).body:
        if not isinstance(group, ast.ClassDef):
            continue
        body = [node for node in group.body if not isinstance(node, ast.Assign | ast.FunctionDef)]
        for field, after in zip(body, [*body[1:], None], strict=True):
            assert not isinstance(field, ast.AnnAssign) or isinstance(after, ast.Expr), (
                f"{group.name}: {ast.unparse(field)}"
            )


def test_paths_begin_at_the_folder_of_the_file() -> None:
    """Relative paths do, absolute ones stay."""
    text = """
server: {cert: ssl/c.pem, key: ../k.pem, client-ca: /ca.pem, mutations: m.yaml}
policy: {rdt: {classes: classes.yaml}}
catalogue: {files: [cluster, "/nads/*.yaml"]}
"""
    loaded = Settings.load(text, "etc/server.yaml")
    paths = (loaded.server.cert, loaded.server.key, loaded.server.client_ca, loaded.server.mutations)
    assert paths == ("etc/ssl/c.pem", "etc/../k.pem", "/ca.pem", "etc/m.yaml")
    assert loaded.policy.rdt.classes == "etc/classes.yaml"
    assert loaded.catalogue.files == ("etc/cluster", "/nads/*.yaml")


def test_flags_win_over_the_file() -> None:
    """An override replaces the file's value or adds to what is not there; 0 is any free port."""
    overrides = {
        "server.port": 0,
        "server.health-port": 0,
        "server.log-level": "debug",
        "policy.enforcement": "required",
        "policy.disk.minimumBytesPerSecond": 7,
    }
    loaded = Settings.load("server: {port: 9443, log-level: error}\n", "server.yaml", overrides)
    assert (loaded.server.port, loaded.server.health_port, loaded.server.log_level) == (0, 0, "debug")
    assert (loaded.policy.enforcement, loaded.policy.disk.minimum_bytes_per_second) == ("required", 7)
    assert Settings.load("server:\n", "server.yaml", {"server.port": 9443}).server.port == 9443


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "fe80::1", "localhost", "a-b.example.org"])
def test_addresses_may_be_numbers_or_names(address: str) -> None:
    """IPv4, IPv6 and host names are taken."""
    assert Settings.load(f'server: {{binding-address: "{address}"}}', "s").server.binding_address == address


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            'server:\n  port: "8443"\n',
            ['etc/server.yaml:2: server.port: "8443": a whole number is needed (write 8443 without quotation marks)'],
            id="port-as-text",
        ),
        pytest.param("server: {port: 0}", ["etc/server.yaml:1: server.port: 0: allowed: 1 to 65535"], id="port-zero"),
        pytest.param(
            "\nserver: {}\npolcy: {}\n",
            ["etc/server.yaml:3: polcy: unknown key; allowed: server, policy, catalogue, cluster (write policy)"],
            id="unknown-block",
        ),
        pytest.param(
            "server: {drain-seconds: -1, handshake-seconds: 0, poll-seconds: 1e9}",
            [
                "etc/server.yaml:1: server.handshake-seconds: 0: allowed: more than 0, up to 3600",
                "etc/server.yaml:1: server.drain-seconds: -1: allowed: 0 to 3600",
                "etc/server.yaml:1: server.poll-seconds: 1000000000: allowed: more than 0, up to 3600",
            ],
            id="seconds",
        ),
        pytest.param(
            "server: {binding-address: '0.0.0.0:80'}",
            [
                ('etc/server.yaml:1: server.binding-address: "0.0.0.0:80": allowed: an IPv4 or IPv6 address without brackets '
                "and port, or a host name")
            ],
            id="address-with-port",
        ),
        pytest.param(
            "server: {binding-address: '10.0.0.300'}",
            [
                ('etc/server.yaml:1: server.binding-address: "10.0.0.300": allowed: an IPv4 or IPv6 address without brackets '
                "and port, or a host name")
            ],
            id="address-out-of-range",
        ),
        pytest.param(
            "server: {cert: ''}",
            ["etc/server.yaml:1: server.cert: a path is needed; leave the key out where there is none"],
            id="empty-path",
        ),
        pytest.param(
            "server:\n  cert: c\n",
            ['etc/server.yaml:2: server.cert: "etc/c": a certificate needs its private key (add server.key)'],
            id="cert-without-key",
        ),
        pytest.param(
            "server:\n  key: k\n",
            ['etc/server.yaml:2: server.key: "etc/k": a private key needs its certificate (add server.cert)'],
            id="key-without-cert",
        ),
        pytest.param(
            "server:\n  client-names: [a, b]\n  port: 9000\n  health-port: 9000\n  client-ca: ca\n  cert: c\n  key: k\n",
            ["etc/server.yaml:4: server.health-port: 9000: server.port is the same; the two need a port each"],
            id="same-port",
        ),
        pytest.param(
            "server: {client-names: [a, b]}",
            [
                ('etc/server.yaml:1: server.client-names: "a, b": names are only known of certificates that are checked '
                "(add server.client-ca)")
            ],
            id="names-without-ca",
        ),
        pytest.param(
            "server: {client-ca: ca}",
            ['etc/server.yaml:1: server.client-ca: "etc/ca": clients show certificates over TLS only (add server.cert and server.key)'],
            id="ca-without-cert",
        ),
        pytest.param(
            "catalogue: {complete: [claims, nets]}",
            ['etc/server.yaml:1: catalogue.complete[1]: "nets": allowed: networks, claims, storageClasses (write networks)'],
            id="complete",
        ),
        pytest.param("- a", ['etc/server.yaml:1: ["a"]: a mapping (lines of key: value) is needed'], id="a-list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(text: str, told: list[str]) -> None:
    """Every problem has line, key, value and what is allowed."""
    assert _told(text) == told


def test_what_a_flag_did_wrong_is_told_of_the_flag() -> None:
    """The file is not blamed for a flag's value, nor is a flag merged into a file that is no mapping."""
    assert _told("server: {key: 1}", {"server.health-port": "x"}) == [
        'etc/server.yaml:1: server.key: 1: a text is needed (put it in quotation marks: "1")',
        'command line: server.health-port: "x": a whole number is needed',
    ]
    assert _told("server: 3", {"server.port": 1}) == [
        "etc/server.yaml:1: server: 3: a mapping (lines of key: value) is needed"
    ]
    assert _told("3", {"server.port": 1}) == ["etc/server.yaml:1: 3: a mapping (lines of key: value) is needed"]
