"""The parts of a node's enforcer, as its settings say."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import namespaces
import pytest

ROOT: Final = Path(__file__).parents[2]
OF_HOST: Final = """
import subprocess, sys
from pathlib import Path
from noisegate.enforcement.config import Settings
from noisegate.enforcement.kernel.links import GoneError
from noisegate.enforcement.survey import Parts

host, netns = Path(sys.argv[1]), sys.argv[2]
links = Parts.of(Settings(host=str(host))).links
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host], check=True)
(host / "var").mkdir()
(host / "var/run").symlink_to("/run")
(host / "run").mkdir()
for path in "/var/run/netns/cni-1", "/run/containerd/state/netns/cni-2":
    there = Path(f"{host}{path.removeprefix('/var')}")
    there.parent.mkdir(parents=True)
    there.touch()
    subprocess.run(["mount", "--bind", netns, there], check=True)
    print(links.find(path))
    subprocess.run(["umount", there], check=True)
    try:
        links.find(path)
    except GoneError as gone:
        print(gone)
"""


def test_a_pod_s_network_namespace_is_looked_for_on_the_host(tmp_path: Path) -> None:
    """In a container, below where the host's root is seen: the runtime may have it in its state directory, and links are the host's."""
    if namespaces.missing():
        pytest.skip(namespaces.missing())
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", OF_HOST, str(tmp_path)]
    with namespaces.node() as node:
        pod = node.pod()
        done = subprocess.run([*command, pod.netns], capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(pod.host),
        "/var/run/netns/cni-1 is no network namespace any more",
        str(pod.host),
        "/run/containerd/state/netns/cni-2 is no network namespace any more",
    ]
