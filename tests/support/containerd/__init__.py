"""A real containerd with NRI, runc and CNI, in namespaces of its own; nothing of the machine is changed.

```python
with Node(folder) as node, Containerd(node, Nri(request=1.0, validator=True)) as containerd:
    plugin.connect(containerd.socket)
    pod = containerd.cri.run_pod(annotations={"noisegate.io/x": "1"})
    container = containerd.cri.run(pod)
    assert containerd.cri.exec(container, "true").code == 0
    node.cgroup("cpuset", pod.cgroup)                        # the pod's cgroup, as this process reaches it
    node.root / "proc" / "17" / "ns/net"                     # of a process that the runtime calls 17
    node.run(str(node.busybox), "ping", "-c1", containerd.cri.pod(pod).network.ip)
    containerd.restart()                                     # or kill(), start(): containers go on
```
"""

from containerd.config import TOLERATE, Nri
from containerd.cri import Cri, CriError, Pod, Ran
from containerd.cri_pb2 import Device, LinuxContainerResources, Mount
from containerd.daemon import Containerd, Start
from containerd.node import Node

__all__ = [
    "TOLERATE",
    "Containerd",
    "Cri",
    "CriError",
    "Device",
    "LinuxContainerResources",
    "Mount",
    "Node",
    "Nri",
    "Pod",
    "Ran",
    "Start",
]
