"""Between NRI's messages and the values of `events`."""

from typing import Final

from noisegate.enforcement.actions import Device
from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.events import (
    Adjustment,
    Container,
    ContainerDevice,
    Mount,
    Owners,
    Sandbox,
    State,
    Validation,
)

PLUGIN_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Plugin"].full_name
RUNTIME_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Runtime"].full_name

SUBSCRIBED: Final = sum(
    1 << (event - 1)
    for event in (
        pb.RUN_POD_SANDBOX,
        pb.STOP_POD_SANDBOX,
        pb.REMOVE_POD_SANDBOX,
        pb.CREATE_CONTAINER,
        pb.UPDATE_CONTAINER,
        pb.VALIDATE_CONTAINER_ADJUSTMENT,
    )
)
"""The event mask. A runtime closes the connection at a bit that it does not know, and takes 0 for everything."""

_STATES: Final = {state.value: state for state in State}


def read_sandbox(said: pb.PodSandbox) -> Sandbox:
    """Return what the runtime says of a pod; when it is about to forget the pod, no more than the id."""
    return Sandbox(
        id=said.id,
        uid=said.uid,
        name=said.name,
        namespace=said.namespace,
        annotations=dict(said.annotations),
        cgroup_parent=said.linux.cgroup_parent,
        netns=next((space.path for space in said.linux.namespaces if space.type == "network"), ""),
        pid=said.pid,
        runtime_handler=said.runtime_handler,
        namespaces_told=bool(said.linux.namespaces),
    )


def read_container(said: pb.Container) -> Container:
    """Return what the runtime says of a container; when its creation is undone, no more than the ids."""
    linux = said.linux
    return Container(
        id=said.id,
        sandbox=said.pod_sandbox_id,
        name=said.name,
        state=_STATES.get(said.state, State.UNKNOWN),
        mounts=tuple(Mount(mount.destination, mount.source) for mount in said.mounts),
        devices=tuple(ContainerDevice(one.path, one.type, Device(one.major, one.minor)) for one in linux.devices),
        cgroups_path=linux.cgroups_path,
        pid=said.pid,
        rdt_class=linux.resources.rdt_class.value if linux.resources.HasField("rdt_class") else None,
        clos_id=linux.rdt.clos_id.value if linux.rdt.HasField("clos_id") else None,
    )


def write_adjustment(adjustment: Adjustment) -> pb.ContainerAdjustment:
    """Return an adjustment as the runtime takes it; a message that is not set claims nothing."""
    adjust = pb.ContainerAdjustment()
    if adjustment.rdt_class is not None:
        adjust.linux.resources.rdt_class.value = adjustment.rdt_class
    if adjustment.clos_id is not None:
        adjust.linux.rdt.clos_id.value = adjustment.clos_id
    for file, text in adjustment.unified.items():
        adjust.linux.resources.unified[file] = text
    return adjust


def read_validation(asked: pb.ValidateContainerAdjustmentRequest) -> Validation:
    """Return what is to be agreed to."""
    linux = asked.adjust.linux
    return Validation(
        sandbox=read_sandbox(asked.pod),
        container=read_container(asked.container),
        adjustment=Adjustment(
            rdt_class=linux.resources.rdt_class.value if linux.resources.HasField("rdt_class") else None,
            clos_id=linux.rdt.clos_id.value if linux.rdt.HasField("clos_id") else None,
            unified=dict(linux.resources.unified),
        ),
        owners=_owners(asked.owners, asked.container.id),
        plugins=tuple(f"{plugin.index}-{plugin.name}" for plugin in asked.plugins),
    )


def _owners(said: pb.OwningPlugins, container: str) -> Owners:
    # Reading a missing key of a protobuf map of messages would make it.
    if container not in said.owners:
        return Owners()
    fields = said.owners[container]

    def by_key(field: pb.Field) -> dict[str, str]:
        return dict(fields.compound[field].owners) if field in fields.compound else {}

    return Owners(
        rdt_class=fields.simple.get(pb.RDT_CLASS, ""),
        clos_id=fields.simple.get(pb.RDT_CLOS_ID, ""),
        schemata=fields.simple.get(pb.RDT_SCHEMATA, ""),
        unified=by_key(pb.CGROUPS_UNIFIED),
        cgroups_path=fields.simple.get(pb.CGROUPS_PATH, ""),
        namespaces=by_key(pb.NAMESPACE),
        mounts=by_key(pb.MOUNTS),
        devices=by_key(pb.DEVICES),
    )
