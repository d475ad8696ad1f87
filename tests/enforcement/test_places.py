"""Where a container's volumes lie: from the pod's names to the device that is throttled."""

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, disk, paths, spec

from noisegate.enforcement.actions import Device
from noisegate.enforcement.intent.intent import Intent, Sandbox, Watched, choose
from noisegate.enforcement.intent.spec import Spec
from noisegate.enforcement.nri.events import Container, ContainerDevice, Mount
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys

SANDBOX: Final = Sandbox("u1", "default", "web", {})
PV: Final = "/data/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount"


def told_by_runtime(text: str, **more: str) -> Intent:
    """Return what a pod asks for, as the runtime says it."""
    annotations = {keys.DISK: text, **{key.replace("_", "-"): value for key, value in more.items()}}
    return choose(SANDBOX._replace(annotations=annotations))


def with_paths(text: str, where: str = "") -> Intent:
    """Return the same, with the annotation that the webhook adds."""
    return choose(SANDBOX._replace(annotations={keys.DISK: text, keys.VOLUME_PATHS: where or paths()}))


def told_by_watch(text: str, said: dict[str, Any] | None = None) -> Intent:
    """Return what a pod asks for, as the API server says it."""
    built = msgspec.convert({**spec(), **(said or {})}, Spec)
    return choose(SANDBOX, Watched("u1", "default", "web", {keys.DISK: text}, "1", spec=built))


def having(*mounts: tuple[str, str], devices: tuple[ContainerDevice, ...] = (), name: str = "app") -> Container:
    """Return a container with mounts: where, from where."""
    return Container("c1", "s1", name, mounts=tuple(Mount(*each) for each in mounts), devices=devices)


def refused(lab: Lab, intent: Intent, container: Container) -> Refusal:
    """Return why a container's places are refused."""
    with pytest.raises(Refusal) as error:
        lab.places.of(intent, container)
    return error.value


def test_nothing_asked_is_nothing_looked_up(lab: Lab) -> None:
    """A pod that asks for no disk needs no mount table."""
    lab.mounts = []
    assert lab.places.of(choose(SANDBOX), having(("/data", PV))) == {}


@pytest.mark.parametrize("source", ["annotation", "watch"])
def test_a_volume_is_found_by_its_mount(lab: Lab, source: str) -> None:
    """The host's folder bears the PV's name; a partition's disk is what is throttled."""
    text = disk(data="4Mi", more="4Mi")
    intent = with_paths(text) if source == "annotation" else told_by_watch(text)
    container = having(("/data", PV), ("/more", "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/more"))
    assert lab.places.of(intent, container) == {"data": DATA_DISK, "more": ROOT_DISK}


def test_a_volume_that_this_container_does_not_mount(lab: Lab) -> None:
    """It has no place here, and others are found all the same."""
    intent = with_paths(disk(data="4Mi", more="4Mi"), '{"data": {"app": "/data"}, "more": {"other": "/more"}}')
    assert lab.places.of(intent, having(("/data", PV))) == {"data": DATA_DISK}


def test_the_later_mount_at_a_path_counts(lab: Lab) -> None:
    """What is mounted last is what the container sees; a slash at the end makes no other path."""
    container = having(("/data", "/var/x"), ("/data/", PV))
    assert lab.places.of(with_paths(disk(data="4Mi")), container) == {"data": DATA_DISK}


@pytest.mark.parametrize("source", ["annotation", "watch"])
@pytest.mark.parametrize(
    ("written", "told"), [("data", "/data"), ("./x/../data", "/data"), ("/data/", "/data/"), ("//data/.", "//data/.")]
)
def test_a_mount_path_that_is_not_plain(lab: Lab, source: str, written: str, told: str) -> None:
    """The kubelet puts a / before a relative one; the runtime tells others as they are written."""
    text = disk(data="4Mi")
    if source == "annotation":
        intent = with_paths(text, json.dumps({"data": {"app": written}}))
    else:
        mounts = [{"name": "data", "mountPath": written}]
        intent = told_by_watch(text, {"containers": [{"name": "app", "volumeMounts": mounts}]})
    assert lab.places.of(intent, having((told, PV))) == {"data": DATA_DISK}


def test_a_raw_block_volume(lab: Lab) -> None:
    """It comes as a device of the container, and is throttled as its own disk; a character device is none."""
    text = with_paths(disk(data="4Mi"), '{"data": {"app": "/dev/xvda/"}}')
    block = ContainerDevice("/dev/xvda", "b", Device(8, 1))
    assert lab.places.of(text, having(devices=(block,))) == {"data": ROOT_DISK}
    refusal = refused(lab, text, having(devices=(block._replace(kind="c"),)))
    assert refusal.reason == "VolumeNotFound"
    gone = refused(lab, text, having(devices=(block._replace(device=Device(9, 9)),)))
    assert (gone.reason, "9:9" in gone.told) == ("DeviceGone", True)


def test_the_writable_layer(lab: Lab) -> None:
    """It needs no paths: it lies where the runtime keeps its store."""
    assert lab.places.of(told_by_runtime(disk(layers="4Mi")), having()) == {"*": ROOT_DISK}
    assert lab.places.of_store() == ROOT_DISK


def test_unknown_paths_are_refused(lab: Lab) -> None:
    """With neither the API server nor the webhook's annotation nobody knows where a volume is: the start fails."""
    refusal = refused(lab, told_by_runtime(disk(data="4Mi", layers="4Mi")), having(("/data", PV)))
    assert refusal.reason == "VolumesUnknown"
    assert "container app has volume data" in refusal.told


def test_a_mount_that_is_not_there_is_refused(lab: Lab) -> None:
    """Another plugin may have taken it away: not limited is not an answer."""
    refusal = refused(lab, with_paths(disk(data="4Mi")), having(("/other", PV)))
    assert (refusal.reason, "at /data, where volume data is said to be" in refusal.told) == ("VolumeNotFound", True)


@pytest.mark.parametrize("source", ["tmpfs", "", "../data"])
def test_a_source_that_is_no_path(lab: Lab, source: str) -> None:
    """A file system's name is no place on the host."""
    assert refused(lab, with_paths(disk(data="4Mi")), having(("/data", source))).reason == "VolumeNotFound"


def test_a_volume_without_a_local_device(lab: Lab) -> None:
    """NFS is said by its name; one bad volume refuses all of the container's."""
    refusal = refused(lab, with_paths(disk(data="4Mi", more="4Mi")), having(("/data", PV), ("/more", "/nfs/a")))
    assert (refusal.reason, "/nfs/a is on nfs4" in refusal.told) == ("VolumeNotThrottled", True)


def test_a_path_on_no_mount(tmp_path: Path, lab: Lab) -> None:
    """The enforcer's container may not have the host's root: then it says so."""
    lab.mounts = [one for one in lab.mounts if one.point != str(tmp_path)]
    assert refused(lab, with_paths(disk(data="4Mi")), having(("/data", "/srv/x"))).mend.startswith("mount the host's")


def test_a_link_of_the_host_is_followed(tmp_path: Path, lab: Lab) -> None:
    """/var/lib/kubelet may be a link to another disk; an absolute link leads within the host's tree."""
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet").symlink_to("/data/kubelet")
    container = having(("/data", "/var/lib/kubelet/pods/u1/x"))
    assert lab.places.of(with_paths(disk(data="4Mi")), container) == {"data": DATA_DISK}
