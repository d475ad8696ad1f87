"""containerd's configuration: versions, imports, and what of it decides whether pods can be held."""

from pathlib import Path

import pytest

from noisegate.enforcement.kernel.containerd_config import ContainerdConfig, Runtime, Validator, load, parse
from noisegate.enforcement.refusal import Refusal

V4 = """
version = 4
root = '/data/root'
state = '/data/state'
disabled_plugins = ['io.containerd.snapshotter.v1.btrfs']
[plugins.'io.containerd.service.v1.tasks-service']
  rdt_config_file = '/etc/rdt.yaml'
[plugins.'io.containerd.cri.v1.runtime']
  ignore_rdt_not_enabled_errors = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'fast'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.fast]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.fast.options]
        BinaryName = '/opt/runc'
        SystemdCgroup = true
[plugins.'io.containerd.nri.v1.nri']
  socket_path = '/run/nri.sock'
  plugin_request_timeout = '1m1.5s'
  [plugins.'io.containerd.nri.v1.nri'.default_validator]
    enable = true
    required_plugins = ['enforcer']
    tolerate_missing_plugins_annotation = 'tolerate-missing-nri-plugins.noderesource.dev'
"""


def host(tmp_path: Path, **files: str) -> Path:
    """Return a host's root with files below /etc/containerd; `conf_d__a` stands for conf.d/a.toml."""
    for name, text in files.items():
        path = tmp_path / "etc/containerd" / f"{name.replace('_d__', '.d/')}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def config(tmp_path: Path, **files: str) -> ContainerdConfig:
    """Return what a host's files say."""
    return load(host=host(tmp_path, **files))


def test_everything_that_concerns_us(tmp_path: Path) -> None:
    """Every fact is read from its place."""
    assert config(tmp_path, config=V4) == ContainerdConfig(
        files=("/etc/containerd/config.toml",),
        nri=True,
        nri_socket="/run/nri.sock",
        nri_seconds=61.5,
        validator=Validator(
            enabled=True,
            required_plugins=("enforcer",),
            tolerate_annotation="tolerate-missing-nri-plugins.noderesource.dev",
        ),
        rdt_config_file="/etc/rdt.yaml",
        ignores_rdt_errors=True,
        default_runtime="fast",
        runtimes={"runc": Runtime(), "fast": Runtime("io.containerd.runc.v2", "/opt/runc", systemd_cgroup=True)},
        store="/data/root",
        state="/data/state",
    )


def test_the_default_runtime(tmp_path: Path) -> None:
    """It is the one that is named; containerd has runc without being told."""
    assert config(tmp_path, config=V4).runtime == Runtime(binary="/opt/runc", systemd_cgroup=True)
    assert ContainerdConfig().runtime == Runtime()
    assert ContainerdConfig(default_runtime="gone").runtime == Runtime()


@pytest.mark.parametrize("text", [None, "version = 3", "version = 2\n[plugins]\n", "version = 4\nroot = ''\n"])
def test_defaults(tmp_path: Path, text: str | None) -> None:
    """Without a file, and with an empty one, NRI is on, its validator off, RDT off, the driver cgroupfs."""
    found = config(tmp_path, **({} if text is None else {"config": text}))
    assert found == ContainerdConfig(files=found.files)
    assert (found.nri, found.validator.enabled, found.rdt_config_file) == (True, False, "")


@pytest.mark.parametrize(
    "text",
    [
        "version = 3\n[plugins.'io.containerd.nri.v1.nri']\ndisable = true",
        "version = 3\n[plugins.'io.containerd.nri.v1.nri']\ndisable_connections = true",
        "version = 3\ndisabled_plugins = ['io.containerd.nri.v1.nri']",
    ],
)
def test_nri_can_be_off_in_three_ways(tmp_path: Path, text: str) -> None:
    """Disabled by its own switch, for connections only, or as a plugin."""
    assert not config(tmp_path, config=text).nri


def test_version_2_has_the_cri_elsewhere(tmp_path: Path) -> None:
    """Containerd moves io.containerd.grpc.v1.cri of version 2 to io.containerd.cri.v1.runtime; so is it read."""
    text = """
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""
    assert config(tmp_path, config=text).runtime.systemd_cgroup


def test_a_drop_in_without_a_version(tmp_path: Path) -> None:
    """Such a file counts as version 1, whose short names of plugins stand for the full ones."""
    main = "version = 3\nimports = ['conf.d/*.toml']"
    drop_in = """
[plugins.cri.containerd.runtimes.runc.options]
SystemdCgroup = true
[plugins.tasks-service]
rdt_config_file = '/etc/rdt.yaml'
[plugins.'io.containerd.nri.v1.nri']
disable = true
"""
    found = config(tmp_path, config=main, conf_d__a=drop_in)
    assert (found.runtime.systemd_cgroup, found.rdt_config_file, found.nri) == (True, "/etc/rdt.yaml", False)


def test_imports(tmp_path: Path) -> None:
    """Globs in order, relative and absolute paths, imports of imports, each file once; tables are merged, the last wins."""
    found = config(
        tmp_path,
        config=V4.replace("version = 4", "version = 4\nimports = ['conf.d/*.toml', '/etc/containerd/more.toml']"),
        conf_d__10="version = 3\n[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = false\n",
        conf_d__20="version = 3\nimports = ['../last.toml', '/etc/containerd/config.toml']\ndisabled_plugins = ['a.b']\n"
        "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nrequired_plugins = ['other']\n",
        more="version = 3\n[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\n",
        last="version = 3\ndisabled_plugins = ['io.containerd.nri.v1.nri']\nroot = ''\n",
    )
    assert found.files == tuple(
        f"/etc/containerd/{name}.toml" for name in ("config", "conf.d/10", "conf.d/20", "more", "last")
    )
    assert found.validator == Validator(
        enabled=True,
        required_plugins=("other",),
        tolerate_annotation="tolerate-missing-nri-plugins.noderesource.dev",
    )
    assert (found.nri, found.store) == (False, "/data/root")


IMAGES = "plugins.'io.containerd.cri.v1.images'.snapshotter"
OVERLAYFS = "plugins.'io.containerd.snapshotter.v1.overlayfs'.root_path"


@pytest.mark.parametrize(
    ("text", "store"),
    [
        pytest.param("version = 4", "", id="said nowhere"),
        pytest.param("version = 4\nroot = '/data/root/'", "/data/root", id="root"),
        pytest.param(f"version = 4\nroot = '/data/root'\n{OVERLAYFS} = '/data/layers'", "/data/layers", id="moved"),
        pytest.param(f"version = 4\nroot = '/data/root'\n{OVERLAYFS} = ''", "/data/root", id="not moved"),
        pytest.param(
            f"version = 4\nroot = '/data/root'\n{OVERLAYFS} = '/data/layers'\n{IMAGES} = 'native'",
            "/data/root",
            id="another's is moved",
        ),
        pytest.param(f"version = 4\nroot = '/data/root'\n{IMAGES} = 'devmapper'", "", id="in no folder"),
        pytest.param(
            "version = 2\nroot = '/data/root'\nplugins.'io.containerd.grpc.v1.cri'.containerd.snapshotter = 'stargz'",
            "",
            id="a program of its own, version 2",
        ),
    ],
)
def test_where_the_writable_layers_are(tmp_path: Path, text: str, store: str) -> None:
    """Below `root`, unless the snapshotter of the CRI has a folder of its own; what the files do not say is not guessed."""
    assert config(tmp_path, config=text).store == store


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({"config": "version = "}, "config.toml cannot be read: Invalid value", id="no TOML"),
        pytest.param({"config": "version = 5"}, "version 5; allowed: up to 4", id="a newer version"),
        pytest.param(
            {"config": "version = 3\nimports = ['gone.toml']"},
            "/etc/containerd/gone.toml cannot be read: No such file or directory",
            id="a missing import",
        ),
        pytest.param(
            {"config": "version = 3\n[plugins]\n'io.containerd.nri.v1.nri' = 5"}, "'int' object", id="another shape"
        ),
        pytest.param(
            {"config": "version = 3\n[plugins.'io.containerd.nri.v1.nri']\nplugin_request_timeout = '2 s'"},
            "plugin_request_timeout '2 s' is no duration such as 2s",
            id="no duration",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, files: dict[str, str], told: str) -> None:
    """Anything that containerd itself would not take, or that is not known, is a refusal with the file's name."""
    with pytest.raises(Refusal) as error:
        config(tmp_path, **files)
    assert error.value.reason == "RuntimeConfigUnreadable"
    assert told in error.value.told


def test_a_number_is_nanoseconds(tmp_path: Path) -> None:
    """Go's durations may be written as a number."""
    text = "version = 3\n[plugins.'io.containerd.nri.v1.nri']\nplugin_request_timeout = 1500000000"
    assert config(tmp_path, config=text).nri_seconds == pytest.approx(1.5)


def test_bytes_that_are_no_text() -> None:
    """TOML is UTF-8."""
    with pytest.raises(ValueError, match="utf-8"):
        parse(b"\xff")
