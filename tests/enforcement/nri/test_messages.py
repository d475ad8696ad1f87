"""NRI's messages as values, and back."""

from noisegate.enforcement.actions import Device
from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.events import (
    UNADJUSTED,
    Adjustment,
    Container,
    ContainerDevice,
    Mount,
    Owners,
    Sandbox,
    State,
    Validation,
)
from noisegate.enforcement.nri.messages import (
    PLUGIN_SERVICE,
    RUNTIME_SERVICE,
    SUBSCRIBED,
    read_container,
    read_sandbox,
    read_validation,
    write_adjustment,
)

LATER = b"\xfa\x3e\x03abc" + b"\xf0\x3e\x07"
"""Fields 1007 (bytes) and 1006 (a number), which no version has."""


def test_what_is_subscribed_to() -> None:
    """Exactly six events: bits 1, 2, 3, 4, 8 and 14. One that a runtime does not know would end the connection."""
    assert SUBSCRIBED == 0b10_0000_1000_1111
    assert (PLUGIN_SERVICE, RUNTIME_SERVICE) == ("nri.pkg.api.v1alpha1.Plugin", "nri.pkg.api.v1alpha1.Runtime")


def test_a_sandbox() -> None:
    """All that is told of a pod arrives; its network namespace is found among the others."""
    said = pb.PodSandbox(id="s1", name="web", uid="u1", namespace="shop", annotations={"a": "b"}, pid=42)
    said.runtime_handler = "kata"
    said.linux.cgroup_parent = "/kubepods/podu1"
    said.linux.namespaces.add(type="ipc", path="/ipc")
    said.linux.namespaces.add(type="network", path="/run/netns/n1")
    assert read_sandbox(pb.PodSandbox.FromString(said.SerializeToString() + LATER)) == Sandbox(
        "s1", "u1", "web", "shop", {"a": "b"}, "/kubepods/podu1", "/run/netns/n1", 42, "kata"
    )


def test_a_sandbox_of_which_only_the_id_is_told() -> None:
    """So the runtime speaks of a pod that it has forgotten: nothing is made up."""
    assert read_sandbox(pb.PodSandbox(id="s1")) == Sandbox("s1", "", "", "", namespaces_told=False)


def test_a_pod_on_the_host_network_and_one_of_which_nothing_is_told() -> None:
    """Other namespaces, and no network among them, say that it is the host's; no namespace at all says nothing."""
    said = pb.PodSandbox(id="s1", pid=42)
    assert not read_sandbox(said).host_network
    said.linux.namespaces.add(type="mount")
    assert read_sandbox(said).host_network
    said.linux.namespaces.add(type="network", path="/run/netns/n1")
    assert not read_sandbox(said).host_network


def test_a_sandbox_that_is_down() -> None:
    """It has neither process nor network; one in the host's network never had one, and is up while pause is."""
    assert read_sandbox(pb.PodSandbox(id="s1")).stopped
    assert not read_sandbox(pb.PodSandbox(id="s1", pid=42)).stopped


def test_a_container() -> None:
    """All that is told of a container arrives; a class that was not given is None, an empty one is empty."""
    said = pb.Container(id="c1", pod_sandbox_id="s1", name="app", state=pb.CONTAINER_RUNNING, pid=7)
    said.mounts.add(destination="/data", source="/var/lib/kubelet/pods/u1/volumes/x/pv")
    said.mounts.add(destination="/proc", source="proc")
    said.linux.devices.add(path="/dev/xvda", type="b", major=8, minor=16)
    said.linux.cgroups_path = "kubepods.slice:cri-containerd:c1"
    assert read_container(pb.Container.FromString(said.SerializeToString() + LATER)) == Container(
        "c1",
        "s1",
        "app",
        State.RUNNING,
        (Mount("/data", "/var/lib/kubelet/pods/u1/volumes/x/pv"), Mount("/proc", "proc")),
        (ContainerDevice("/dev/xvda", "b", Device(8, 16)),),
        "kubepods.slice:cri-containerd:c1",
        7,
        None,
        None,
    )
    said.linux.rdt.clos_id.value = "noisegate-gold"
    said.linux.resources.rdt_class.value = ""
    assert read_container(said).clos_id == "noisegate-gold"
    assert read_container(said).rdt_class == ""


def test_a_state_of_later_versions() -> None:
    """A container in a state that nobody knows yet is in an unknown one."""
    assert read_container(pb.Container.FromString(b"\x20\x63")).state is State.UNKNOWN


def test_adjustments() -> None:
    """Only what is set is claimed: an empty message would claim a field that another plugin sets."""
    assert write_adjustment(UNADJUSTED).SerializeToString() == b""
    rdt = write_adjustment(Adjustment(clos_id="noisegate-gold"))
    assert rdt.linux.rdt.clos_id.value == "noisegate-gold"
    assert not rdt.linux.HasField("resources")
    rest = write_adjustment(Adjustment(rdt_class="", unified={"io.max": "8:0 rbps=1"}))
    assert rest.linux.resources.HasField("rdt_class")
    assert dict(rest.linux.resources.unified) == {"io.max": "8:0 rbps=1"}
    assert not rest.linux.HasField("rdt")


def test_a_validation() -> None:
    """The adjustment of all plugins, who set what, and who was asked."""
    asked = pb.ValidateContainerAdjustmentRequest()
    asked.pod.id, asked.container.id = "s1", "c1"
    asked.adjust.linux.rdt.clos_id.value = "noisegate-gold"
    asked.adjust.linux.resources.rdt_class.value = "silver"
    asked.adjust.linux.resources.unified["io.max"] = "8:0 rbps=1"
    asked.owners.owners["other"].simple[37] = "99-other"
    mine = asked.owners.owners["c1"]
    mine.simple[26], mine.simple[37], mine.simple[38] = "20-rdt", "10-noisegate", "-30-late"
    mine.simple[99] = "later versions own more"
    mine.compound[27].owners["io.max"] = "10-noisegate"
    mine.compound[1].owners["an/annotation"] = "20-rdt"
    mine.simple[28] = "30-late"
    mine.compound[33].owners["network"] = "-20-rdt"
    mine.compound[2].owners["/data"] = "30-late"
    mine.compound[4].owners["/dev/x"] = "20-rdt"
    asked.plugins.add(name="noisegate", index="10")
    asked.plugins.add(name="rdt", index="20")
    assert read_validation(pb.ValidateContainerAdjustmentRequest.FromString(asked.SerializeToString())) == Validation(
        Sandbox("s1", "", "", "", namespaces_told=False),
        Container("c1", "", ""),
        Adjustment("silver", "noisegate-gold", {"io.max": "8:0 rbps=1"}),
        Owners(
            "20-rdt",
            "10-noisegate",
            "-30-late",
            {"io.max": "10-noisegate"},
            "30-late",
            {"network": "-20-rdt"},
            {"/data": "30-late"},
            {"/dev/x": "20-rdt"},
        ),
        ("10-noisegate", "20-rdt"),
    )


def test_a_validation_of_nothing() -> None:
    """Where no plugin set anything, nothing is owned."""
    asked = pb.ValidateContainerAdjustmentRequest()
    asked.container.id = "c1"
    assert read_validation(asked).adjustment == UNADJUSTED
    assert read_validation(asked).owners == Owners()
    asked.owners.owners["c1"].simple[1] = "20-other"
    assert read_validation(asked).owners == Owners()
