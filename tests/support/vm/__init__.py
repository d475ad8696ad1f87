"""A real node in an emulated machine: Debian's kernel, cgroup v2, systemd, containerd; gone on from a saved state in a second.

```python
with vm.start(folder) as node:                                  # makes the state where it is absent
    node.start_containerd(Nri(request=10.0, validator=True), systemd_cgroup=True)
    enforcing.install(node)                                     # noisegate as it is checked out
    enforcer = Enforcer(node)                                   # also: kill(), pid, cli("status"), metric(...)
    enforcer.start()

    pod = node.run_pod(annotations={...})                       # its cgroup is made as the kubelet makes it
    data = Mount(container_path="/data", host_path="/srv/logical")
    load = node.cri.create(pod, tools.fio("/data/file", "write"), mounts=[*tools.mounts(), data])
    node.cri.start(load)
    device = node.device("/srv/logical")                        # "253:0"
    measure.await_load(node, pod.cgroup, device, "wbytes")
    measure.io_rate(node, pod.cgroup, device, "wbytes", 10.0)   # bytes in a second, by io.stat and the node's clock

    node.containerd.kill(), node.containerd.pid, node.containerd.log()
    node.start("name", "program", "argument").kill()            # a program of one's own, as a service of systemd
    node.socket("/run/nri/nri.sock")                            # the same socket, as a path of the host
    node.machine.forward(8082)                                  # the same port, on the host's loopback
    node.reboot()

    with vm.join(another_folder, node) as cluster:              # kubelet, API server, controllers, scheduler
        cluster.plane.kubectl("apply", "-f", "-", input=manifest)
        cluster.await_phase("web", "Running")
```
"""

from vm.channel import Ran, Sample
from vm.cluster import Cluster, join
from vm.node import DISKS, CommandError, Node
from vm.service import Service
from vm.state import start

__all__ = ["DISKS", "Cluster", "CommandError", "Node", "Ran", "Sample", "Service", "join", "start"]
