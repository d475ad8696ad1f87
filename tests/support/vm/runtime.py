"""How containerd and its parts are configured on a node, where a distribution has them."""

import json
from typing import Final

from containerd.config import Nri
from containerd.images import PAUSE

CONFIG: Final = "/etc/containerd/config.toml"
SOCKET: Final = "/run/containerd/containerd.sock"
DROP_INS: Final = "/etc/containerd/conf.d"
NRI_SOCKET: Final = "/run/nri/nri.sock"
RESTS: Final = (
    "io.containerd.differ.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.internal.v1.tracing",
    "io.containerd.mount-handler.v1.erofs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)  # fmt: skip
"""Plugins of containerd that have no work here; each costs time at a start."""


def toml(nri: Nri, *, systemd_cgroup: bool) -> str:
    """Return a configuration of version 4 (docs/man/containerd-config.toml.5.md of containerd 2.4).

    Args:
        nri: How plugins are treated.
        systemd_cgroup: Whether systemd makes the containers' cgroups.
    """
    return f"""\
version = 4
imports = ['{DROP_INS}/*.toml']
disabled_plugins = {json.dumps(RESTS)}

[plugins.'io.containerd.server.v1.grpc']
address = '{SOCKET}'
[plugins.'io.containerd.server.v1.ttrpc']
address = '{SOCKET}.ttrpc'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '/usr/local/bin/runc'
SystemdCgroup = {json.dumps(systemd_cgroup)}
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/opt/cni/bin']
conf_dir = '/etc/cni/net.d'

[plugins.'io.containerd.nri.v1.nri']
disable = false
socket_path = '{NRI_SOCKET}'
plugin_path = '/opt/nri/plugins'
plugin_config_path = '/etc/nri/conf.d'
plugin_registration_timeout = '{nri.registration:g}s'
plugin_request_timeout = '{nri.request:g}s'
[plugins.'io.containerd.nri.v1.nri'.default_validator]
enable = {json.dumps(nri.validator)}
required_plugins = {json.dumps(nri.required)}
tolerate_missing_plugins_annotation = '{nri.tolerate}'
"""
