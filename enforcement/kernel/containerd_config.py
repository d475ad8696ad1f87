"""What containerd's configuration says of NRI, its validator, RDT, cgroups and the container store.

    config.toml                 version 2, 3 or 4; `imports` names further files, with globs; those may have none
    conf.d/10-nri.toml, ...     merged in the order they are named; the later one wins

As containerd reads them (cmd/containerd/server/config/config.go and plugins/, 2.2 to 2.4): tables are merged key by
key, all other values of a plugin are replaced, `disabled_plugins` of all files count together. Version 2 keeps the
CRI's settings under io.containerd.grpc.v1.cri, versions 3 and 4 under io.containerd.cri.v1.runtime and .images.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from noisegate.enforcement.refusal import Refusal

DEFAULT: Final = "/etc/containerd/config.toml"
_NRI: Final = "io.containerd.nri.v1.nri"
_TASKS: Final = "io.containerd.service.v1.tasks-service"
_CRI: Final = "io.containerd.cri.v1.runtime"
_OLD_CRI: Final = "io.containerd.grpc.v1.cri"
_IMAGES: Final = "io.containerd.cri.v1.images"
_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1."
_IN_FOLDERS: Final = frozenset({"btrfs", "erofs", "native", "overlayfs"})
"""Snapshotters of containerd's own whose layers are files below `root`, or below `root_path` where they have one."""
_NEWEST: Final = 4
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Validator(NamedTuple):
    """NRI's built-in validator; without it nobody refuses a container whose required plugin is not there.

    Attributes:
        enabled: Off by default.
        required_plugins: What every container of the node needs.
        tolerate_annotation: Key with which a pod may do without; empty: none may.
    """

    enabled: bool = False
    required_plugins: tuple[str, ...] = ()
    tolerate_annotation: str = ""


class Runtime(NamedTuple):
    """An OCI runtime of the CRI.

    Attributes:
        kind: `runtime_type`, such as `io.containerd.runc.v2`.
        binary: `BinaryName`; empty: `runc` from PATH.
        systemd_cgroup: Whether the systemd cgroup driver is used.
    """

    kind: str = "io.containerd.runc.v2"
    binary: str = ""
    systemd_cgroup: bool = False


class ContainerdConfig(NamedTuple):
    """What of containerd's configuration concerns this program.

    Attributes:
        files: All that were read, the main one first; empty: there is none, and everything is containerd's default.
        nri: Whether plugins can connect.
        nri_socket: Where.
        nri_seconds: What a plugin has for an answer.
        validator: NRI's built-in validator.
        rdt_config_file: What the runtime makes its RDT classes from; empty: it has no RDT.
        ignores_rdt_errors: Whether a container starts without its class where the runtime has no RDT.
        default_runtime: Name of the runtime of pods without a RuntimeClass.
        runtimes: By name.
        store: Folder of the writable layers: `root_path` of the CRI's snapshotter, else `root`. Empty: neither is named, and it
            is /var/lib/containerd or what the command line says; or the snapshotter has no such folder, or one of its own.
        state: For what a boot may take away.
    """

    files: tuple[str, ...] = ()
    nri: bool = True
    nri_socket: str = "/var/run/nri/nri.sock"
    nri_seconds: float = 2.0
    validator: Validator = Validator()
    rdt_config_file: str = ""
    ignores_rdt_errors: bool = False
    default_runtime: str = "runc"
    runtimes: Mapping[str, Runtime] = {"runc": Runtime()}
    store: str = ""
    state: str = "/run/containerd"

    @property
    def runtime(self) -> Runtime:
        """The default runtime."""
        return self.runtimes.get(self.default_runtime, Runtime())


def load(path: str = DEFAULT, host: Path = Path("/")) -> ContainerdConfig:
    """Read containerd's configuration as containerd would.

    Args:
        path: Of the main file, as the host sees it.
        host: Where the host's root directory is mounted.

    Raises:
        Refusal: `RuntimeConfigUnreadable`: a file cannot be read, is no TOML, or of another version.
    """
    if not _under(host, path).exists():
        return ContainerdConfig()
    read: dict[str, Mapping[str, Any]] = {}
    pending = [path]
    while pending:
        name, *pending = pending
        if name not in read:
            try:
                read[name] = parse(_under(host, name).read_bytes())
            except (OSError, ValueError) as error:
                raise _unreadable(name, error) from error
            pending += [each for given in read[name].get("imports", ()) for each in _imported(name, given, host)]
    try:
        return facts(merged(read.values()), tuple(read))
    except (AttributeError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def parse(text: bytes) -> dict[str, Any]:
    """Read one file; settings of older versions are put where those of the newest stand.

    Raises:
        ValueError: It is no TOML in UTF-8, or of a version that is not known.
    """
    content = tomllib.loads(text.decode())
    version = content.get("version", 1)
    if version not in range(_NEWEST + 1):
        raise ValueError(f"version {version}; allowed: up to {_NEWEST}")
    plugins = {_full_name(name) if version < 2 else name: given for name, given in content.get("plugins", {}).items()}
    if version < 3 and _OLD_CRI in plugins:
        old = plugins[_OLD_CRI]
        plugins[_CRI] = _merge(plugins.get(_CRI, {}), old)
        if snapshotter := old.get("containerd", {}).get("snapshotter"):
            plugins[_IMAGES] = _merge(plugins.get(_IMAGES, {}), {"snapshotter": snapshotter})
    return content | {"plugins": plugins}


def merged(files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put files together, the first being the main one."""
    whole: dict[str, Any] = {}
    disabled: list[str] = []
    for content in files:
        disabled += content.get("disabled_plugins", ())
        # An empty text of the main level overrides nothing: mergo takes it for unset.
        whole = _merge(whole, {key: value for key, value in content.items() if value != ""})
    return whole | {"disabled_plugins": disabled}


def facts(content: Mapping[str, Any], files: tuple[str, ...] = ()) -> ContainerdConfig:
    """Read what concerns this program; what is not set has containerd's default."""
    plugins = content.get("plugins", {})
    nri, cri, tasks = plugins.get(_NRI, {}), plugins.get(_CRI, {}), plugins.get(_TASKS, {})
    default = ContainerdConfig()
    off = _NRI in content.get("disabled_plugins", ()) or nri.get("disable", False)
    validator = nri.get("default_validator", {})
    containerd = cri.get("containerd", {})
    runtimes = {
        name: Runtime(
            given.get("runtime_type") or Runtime().kind,
            given.get("options", {}).get("BinaryName", ""),
            bool(given.get("options", {}).get("SystemdCgroup", False)),
        )
        for name, given in containerd.get("runtimes", {}).items()
    }
    return ContainerdConfig(
        files=files,
        nri=not off and not nri.get("disable_connections", False),
        nri_socket=nri.get("socket_path") or default.nri_socket,
        nri_seconds=_duration(nri.get("plugin_request_timeout", "")) or default.nri_seconds,
        validator=Validator(
            bool(validator.get("enable", False)),
            tuple(validator.get("required_plugins", ())),
            validator.get("tolerate_missing_plugins_annotation", ""),
        ),
        rdt_config_file=tasks.get("rdt_config_file", ""),
        ignores_rdt_errors=bool(cri.get("ignore_rdt_not_enabled_errors", False)),
        default_runtime=containerd.get("default_runtime_name") or default.default_runtime,
        runtimes={**default.runtimes, **runtimes},
        store=_store(content),
        state=content.get("state", default.state),
    )


def _store(content: Mapping[str, Any]) -> str:
    plugins = content.get("plugins", {})
    snapshotter = plugins.get(_IMAGES, {}).get("snapshotter") or "overlayfs"
    if snapshotter not in _IN_FOLDERS:
        return ""
    named = plugins.get(_SNAPSHOTTER + snapshotter, {}).get("root_path") or content.get("root", "")
    return str(PurePosixPath(named)) if named else ""


def _full_name(name: str) -> str:
    """Return what version 1, or a file without a version, means by a short name of a plugin (`v1MigratePluginName`)."""
    if name == "cri":
        return _OLD_CRI
    return f"io.containerd.service.v1.{name}" if name.endswith("-service") and "." not in name else name


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
    return {**base, **both}


def _imported(importer: str, given: str, host: Path) -> list[str]:
    """Return the files that an entry of `imports` names, as the host sees them."""
    # A relative path is meant from the importer's folder; only `*` makes a pattern of it.
    name = os.path.normpath(PurePosixPath(importer).parent / given)
    if "*" not in name:
        return [name]
    return sorted(f"/{each.relative_to(host)}" for each in host.glob(name.lstrip("/")))


def _under(host: Path, path: str) -> Path:
    return host / path.lstrip("/")


def _duration(given: Any) -> float:
    """Return Go's notation of a duration (`2s`, `1m30s`, `500ms`) in seconds; empty: 0."""
    if not isinstance(given, str):
        return float(given) * 1e-9
    pieces = _DURATION.findall(given)
    if "".join(number + unit for number, unit in pieces) != given:
        raise ValueError(f"plugin_request_timeout {given!r} is no duration such as 2s")
    return sum(float(number) * _SECONDS[unit] for number, unit in pieces)


def _unreadable(name: str, error: Exception) -> Refusal:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Refusal("RuntimeConfigUnreadable", f"containerd's configuration {name} cannot be read: {why}")
