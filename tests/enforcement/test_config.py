"""node.yaml in, the settings of one node out."""

import pytest

from noisegate.enforcement.config import Settings, load
from noisegate.service.faults import ConfigError


def test_an_empty_file_stands_for_all_defaults() -> None:
    """They are those of a host whose containerd is installed as Debian does it."""
    settings = load("", "node.yaml")
    assert settings == Settings()
    assert settings.nri.socket == "/var/run/nri/nri.sock"
    assert settings.state == "/run/noisegate"
    assert settings.excluded_namespaces == ("kube-system",)
    assert settings.reconcile_seconds == 10
    assert settings.disk.enforced
    assert settings.rdt.classes == ""


FILE = """\
excludedNamespaces: [kube-system, storage]
disk: {store: /data/containerd}
nodes:
  a: {disk: {enforced: false}, reconcileSeconds: 5}
  b:
"""


@pytest.mark.parametrize(
    ("node", "enforced", "seconds"),
    [
        pytest.param("", True, 10, id="no-node"),
        pytest.param("a", False, 5, id="own"),
        pytest.param("b", True, 10, id="empty"),
        pytest.param("c", True, 10, id="not-listed"),
    ],
)
def test_a_node_has_what_is_its_own_and_the_rest_from_above(node: str, enforced: bool, seconds: float) -> None:
    """Of a group it takes only what it says itself."""
    settings = load(FILE, "node.yaml", node)
    assert settings.disk.store == "/data/containerd"
    assert settings.excluded_namespaces == ("kube-system", "storage")
    assert (settings.disk.enforced, settings.reconcile_seconds) == (enforced, seconds)


def test_everything_wrong_is_told_with_line_and_path_for_every_node() -> None:
    """Also what stands there for another node than this one."""
    text = "cgroup: sys\nnri: {index: x}\nreconcileSeconds: 0\nnodes:\n  a: {disks: {}}\n  b: {host: /x/../y}\n"
    with pytest.raises(ConfigError) as error:
        load(text, "node.yaml", "c")
    told = str(error.value).splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        ["node.yaml:1", "cgroup"],
        ["node.yaml:2", "nri.index"],
        ["node.yaml:3", "reconcileSeconds"],
        ["node.yaml:5", "nodes.a.disks"],
        ["node.yaml:6", "nodes.b.host"],
    ]
    assert "an absolute path without .." in told[0]


@pytest.mark.parametrize(("host", "path"), [("/", "/etc/x"), ("/host", "/host/etc/x")])
def test_a_path_of_the_host_is_seen_below_it(host: str, path: str) -> None:
    """A container sees the host's root at another place than the host itself."""
    assert Settings(host=host).beside("/etc/x") == path
