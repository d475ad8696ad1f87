"""A real node in an emulated machine: Debian's kernel, cgroup v2, systemd, containerd; gone on from a saved state in seconds."""

from vm.channel import Ran, Sample
from vm.node import DISKS, CommandError, Node
from vm.service import Service
from vm.state import start

__all__ = ["DISKS", "CommandError", "Node", "Ran", "Sample", "Service", "start"]
