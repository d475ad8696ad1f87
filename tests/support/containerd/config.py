"""The configuration of a containerd under test."""

import json
from pathlib import Path
from typing import Final, NamedTuple

from containerd.images import PAUSE

TOLERATE: Final = "tolerate-missing-nri-plugins.noderesource.dev"
"""A pod's annotation that lets it start without the plugins that it or the node requires."""


class Nri(NamedTuple):
    """How containerd treats its NRI plugins.

    Attributes:
        request: Seconds that a plugin has for an answer, `plugin_request_timeout`.
        registration: Seconds that it has to register.
        validator: Whether pods can require plugins, by annotation `required-plugins.noderesource.dev`.
        required: Plugins that every container of the node requires, when the validator is on.
        tolerate: Annotation by which a pod is let off, when the validator is on; empty for none.
    """

    request: float = 2.0
    registration: float = 5.0
    validator: bool = False
    required: tuple[str, ...] = ()
    tolerate: str = ""


def toml(folder: Path, runc: Path, plugins: Path, nri: Nri | None) -> str:
    """Return a configuration of version 4, which containerd 2.3 and newer read (docs/ops.md of containerd).

    Args:
        folder: For its sockets and for the folders that it looks into.
        runc: The program.
        plugins: Folder of the CNI plugins.
        nri: Whether and how there are NRI plugins.
    """
    options = nri or Nri()
    return f"""\
version = 4
# Else files of the machine's own containerd are merged in.
imports = []
disabled_plugins = [
  'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.differ.v1.erofs',
  'io.containerd.mount-handler.v1.erofs', 'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing',
]

[plugins.'io.containerd.server.v1.grpc']
address = '{folder}/containerd.sock'
[plugins.'io.containerd.server.v1.ttrpc']
address = '{folder}/containerd.sock.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
path = '{folder}/opt'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'

[plugins.'io.containerd.cri.v1.runtime']
# Below the score of its own parent only a privileged user may go.
restrict_oom_score_adj = true
cdi_spec_dirs = ['{folder}/cdi']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{folder}/net.d'

[plugins.'io.containerd.nri.v1.nri']
disable = {json.dumps(nri is None)}
socket_path = '{folder}/nri.sock'
plugin_path = '{folder}/nri/plugins'
plugin_config_path = '{folder}/nri/conf.d'
plugin_registration_timeout = '{options.registration:g}s'
plugin_request_timeout = '{options.request:g}s'
[plugins.'io.containerd.nri.v1.nri'.default_validator]
enable = {json.dumps(options.validator)}
required_plugins = {json.dumps(options.required)}
tolerate_missing_plugins_annotation = '{options.tolerate}'
"""


def network() -> str:
    """Return a CNI configuration: a veth pair for each pod, an address of 10.88.0.0/24, and the node as its gateway."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    pair = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [pair]})
