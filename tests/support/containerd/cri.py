"""Asks a container runtime for what a kubelet asks it for, over its socket.

Calls block: a test whose plugin answers on the same loop makes them in a thread (`await asyncio.to_thread(cri.create, ...)`).
"""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from containerd import cri_pb2 as pb
from containerd.images import BUSYBOX

SECONDS: Final = 60.0
"""Until a call has failed; a sandbox takes a tenth of one."""
_Answer = TypeVar("_Answer", bound=Message)


class CriError(Exception):
    """The runtime refused or failed.

    Attributes:
        code: Of gRPC, as `UNKNOWN`.
        text: What the runtime says.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code: Final = code
        self.text: Final = text


class Pod(NamedTuple):
    """A pod sandbox that runs.

    Attributes:
        id: The runtime's.
        uid: The pod's.
        cgroup: Of the pod, as a path in the node; its containers' cgroups are in it.
        config: What it was made from.
    """

    id: str
    uid: str
    cgroup: str
    config: pb.PodSandboxConfig


class Ran(NamedTuple):
    """What a command in a container came to."""

    code: int
    stdout: str
    stderr: str


class Cri:
    """A client of the Container Runtime Interface.

    Args:
        address: The runtime's socket.
    """

    def __init__(self, address: Path) -> None:
        # Without an authority of its own the socket's path, percent-encoded, becomes one, which Go's HTTP/2 server refuses.
        options = (("grpc.default_authority", "localhost"), ("grpc.max_reconnect_backoff_ms", 100))
        self._channel: Final = grpc.insecure_channel(f"unix://{address}", options=options)
        self._numbers: Final = itertools.count(1)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def version(self) -> str:
        """Return the runtime's version, as `v2.4.2`."""
        return self._ask("Version", pb.VersionRequest(), pb.VersionResponse).runtime_version

    def not_ready(self) -> dict[str, str]:
        """Return the conditions of the runtime that do not hold, with their messages; `NetworkReady` is one."""
        status = self._ask("Status", pb.StatusRequest(), pb.StatusResponse).status
        return {one.type: one.message for one in status.conditions if not one.status}

    def images(self) -> set[str]:
        """Return the names of the images that pods can be made from."""
        answer = self._ask("ListImages", pb.ListImagesRequest(), pb.ListImagesResponse, service="ImageService")
        return {tag for image in answer.images for tag in image.repo_tags}

    def run_pod(
        self,
        name: str = "",
        *,
        uid: str = "",
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        cgroup: str = "",
        host_network: bool = False,
        attempt: int = 0,
    ) -> Pod:
        """Run a pod sandbox.

        Args:
            name: Of the pod, in namespace `default`; one is made up.
            uid: Of the pod; one is made up.
            annotations: Of the pod, as NRI plugins see them.
            labels: Of the pod, likewise.
            cgroup: `cgroup_parent`; by default where a kubelet with the cgroupfs driver has a Burstable pod.
            host_network: Whether the pod is in the node's network.
            attempt: Number of the pod's earlier sandboxes.

        Raises:
            CriError: The runtime refused.
        """
        uid = uid or str(uuid.uuid4())
        cgroup = cgroup or f"/kubepods/burstable/pod{uid}"
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(
                name=name or f"pod-{next(self._numbers)}", uid=uid, namespace="default", attempt=attempt
            ),
            annotations=annotations,
            labels=labels,
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=cgroup,
                security_context=pb.LinuxSandboxSecurityContext(namespace_options=_namespaces(host_network)),
            ),
        )
        answer = self._ask("RunPodSandbox", pb.RunPodSandboxRequest(config=config), pb.RunPodSandboxResponse)
        return Pod(answer.pod_sandbox_id, uid, cgroup, config)

    def create(
        self,
        pod: Pod,
        command: Sequence[str] = ("sleep", "3600"),
        *,
        name: str = "",
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        mounts: Sequence[pb.Mount] = (),
        devices: Sequence[pb.Device] = (),
        resources: pb.LinuxContainerResources | None = None,
        privileged: bool = False,
        image: str = BUSYBOX,
    ) -> str:
        """Create a container in a pod, and return its id.

        Raises:
            CriError: The runtime refused, as it does when an NRI plugin answers an error.
        """
        network = pod.config.linux.security_context.namespace_options.network
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name or f"container-{next(self._numbers)}"),
            image=pb.ImageSpec(image=image),
            command=command,
            annotations=annotations,
            labels=labels,
            envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in (envs or {}).items()],
            mounts=mounts,
            devices=devices,
            linux=pb.LinuxContainerConfig(
                resources=resources,
                # The namespaces of the sandbox are not taken over: each container says its own.
                security_context=pb.LinuxContainerSecurityContext(
                    privileged=privileged, namespace_options=_namespaces(network == pb.NODE)
                ),
            ),
        )
        request = pb.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        return self._ask("CreateContainer", request, pb.CreateContainerResponse).container_id

    def start(self, container: str) -> None:
        """Start a container."""
        self._ask("StartContainer", pb.StartContainerRequest(container_id=container), pb.StartContainerResponse)

    def run(self, pod: Pod, command: Sequence[str] = ("sleep", "3600"), *, name: str = "") -> str:
        """Create and start a container, and return its id."""
        container = self.create(pod, command, name=name)
        self.start(container)
        return container

    def exec(self, container: str, *command: str, seconds: int = 30) -> Ran:
        """Run a command in a container to its end."""
        request = pb.ExecSyncRequest(container_id=container, cmd=command, timeout=seconds)
        answer = self._ask("ExecSync", request, pb.ExecSyncResponse)
        return Ran(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def update(self, container: str, resources: pb.LinuxContainerResources) -> None:
        """Change the resources of a container, as a kubelet does for a resize or its CPU manager."""
        request = pb.UpdateContainerResourcesRequest(container_id=container, linux=resources)
        self._ask("UpdateContainerResources", request, pb.UpdateContainerResourcesResponse)

    def container(self, container: str) -> pb.ContainerStatus:
        """Return what the runtime says of a container."""
        request = pb.ContainerStatusRequest(container_id=container)
        return self._ask("ContainerStatus", request, pb.ContainerStatusResponse).status

    def pod(self, pod: Pod) -> pb.PodSandboxStatus:
        """Return what the runtime says of a pod sandbox; `network.ip` is its address."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
        return self._ask("PodSandboxStatus", request, pb.PodSandboxStatusResponse).status

    def containers(self) -> list[pb.Container]:
        """Return all containers, ended ones too."""
        return list(self._ask("ListContainers", pb.ListContainersRequest(), pb.ListContainersResponse).containers)

    def pods(self) -> list[pb.PodSandbox]:
        """Return all pod sandboxes, stopped ones too."""
        return list(self._ask("ListPodSandbox", pb.ListPodSandboxRequest(), pb.ListPodSandboxResponse).items)

    def stop(self, container: str, seconds: int = 0) -> None:
        """Stop a container; after some seconds it is killed."""
        request = pb.StopContainerRequest(container_id=container, timeout=seconds)
        self._ask("StopContainer", request, pb.StopContainerResponse)

    def remove(self, container: str) -> None:
        """Remove a container."""
        self._ask("RemoveContainer", pb.RemoveContainerRequest(container_id=container), pb.RemoveContainerResponse)

    def stop_pod(self, pod: Pod) -> None:
        """Stop a pod sandbox and all containers in it; its network is taken down."""
        self._ask("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod.id), pb.StopPodSandboxResponse)

    def remove_pod(self, pod: Pod) -> None:
        """Remove a pod sandbox, and before it all containers in it, as the kubelet does.

        containerd 2.4.2 removes what is left in a sandbox too, and may then wait for itself for ever: RemovePodSandbox holds
        a lock for reading that RemoveContainer wants once more, and a plugin that registers in between wants it for writing
        (internal/cri/server/{sandbox,container}_remove.go, BlockPluginSync of NRI 0.12.3).
        """
        for container in self.containers():
            if container.pod_sandbox_id == pod.id:
                self.remove(container.id)
        self._ask("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), pb.RemovePodSandboxResponse)

    def _ask(self, method: str, request: Message, answer: type[_Answer], service: str = "RuntimeService") -> _Answer:
        call: grpc.UnaryUnaryMultiCallable[Message, _Answer] = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(error.code().name, error.details() or "") from None


def _namespaces(host_network: bool) -> pb.NamespaceOption:
    return pb.NamespaceOption(network=pb.NODE if host_network else pb.POD, pid=pb.CONTAINER, ipc=pb.POD)
