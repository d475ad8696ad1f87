"""A real control plane on loopback: etcd, kube-apiserver, and where a test needs it the controller manager."""

from controlplane.api import Api, Reply
from controlplane.mounts import Mounted
from controlplane.plane import ControlPlane, start

__all__ = ["Api", "ControlPlane", "Mounted", "Reply", "start"]
