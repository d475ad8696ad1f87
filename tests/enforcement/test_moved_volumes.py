"""A volume whose device changes while its pod runs, as when a mount is published anew."""

from typing import Final

import pytest
from enforcerlab import DATA_DISK, ROOT_DISK, Lab, container, disk, limits, paths

from noisegate.enforcement.holder import Holder
from noisegate.enforcement.intent import intent as intents
from noisegate.enforcement.intent.intent import choose
from noisegate.enforcement.kernel.mountinfo import Mount as Mounted
from noisegate.enforcement.nri.events import Sandbox
from noisegate.isolation import keys

SHARED: Final = {keys.DISK: disk(data="4Mi"), keys.VOLUME_PATHS: paths("app", "side")}
LIMIT: Final = limits(4 << 20)


@pytest.fixture(name="holder")
def _holder(lab: Lab) -> Holder:
    return lab.holder()


def make(holder: Holder, sandbox: Sandbox, name: str, number: int = 1) -> None:
    """Create a container with the volume."""
    intent = choose(intents.Sandbox(sandbox.uid, sandbox.namespace, sandbox.name, sandbox.annotations))
    held = holder.take(intent, sandbox, (container(sandbox, name, number, data="/data/a"),))
    assert held.refusals == {}


def move(lab: Lab) -> None:
    """Have the volume's folder on the other disk from now on, for whoever is made now."""
    lab.mounts.append(Mounted(4, 2, ROOT_DISK, "/", f"{lab.folder}/data/a", "ext4", "/dev/sda"))


def test_a_container_that_is_made_anew_is_held_where_it_has_the_volume_now(lab: Lab, holder: Holder) -> None:
    """Whichever of the pod's containers was made first."""
    pod = lab.pod("a", SHARED)
    for name in ("app", "side"):
        make(holder, pod, name)
    assert lab.io(pod) == {DATA_DISK: LIMIT}
    move(lab)
    make(holder, pod, "app", 2)
    assert lab.io_of(pod, ROOT_DISK) == LIMIT
    make(holder, pod, "side", 2)
    assert lab.io(pod) == {ROOT_DISK: LIMIT}
