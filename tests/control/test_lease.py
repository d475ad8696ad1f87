"""The Lease: one holds it, and nothing that is written into it locks everybody out."""

from typing import Any, Final

import pytest
from heldapi import HeldApi

from noisegate.control.lease import MOST_FOREIGN, Lease

PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/n/leases/l"


class Lab:
    """Two candidates and their clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.api = HeldApi()
        self.one, self.other = (Lease(self.api, "n", "l", name, 15.0, lambda: self.now) for name in ("one", "other"))

    @property
    def spec(self) -> dict[str, Any]:
        """The Lease's spec."""
        found: dict[str, Any] = self.api.objects[PATH]["spec"]
        return found

    def claim(self, seconds: object) -> None:
        """Have a stranger hold it for a time."""
        self.api.put(PATH, {"spec": {"holderIdentity": "stranger", "leaseDurationSeconds": seconds}})


@pytest.fixture(name="lab")
def _lab() -> Lab:
    return Lab()


async def test_one_holds_it_until_it_has_run_out(lab: Lab) -> None:
    """Renewed it lasts, silent it does not; a change of hands is counted."""
    assert await lab.one.hold()
    assert not await lab.other.hold()
    lab.now = 14.0
    assert await lab.one.hold()
    assert not await lab.other.hold()
    lab.now = 28.0
    assert not await lab.other.hold()
    lab.now = 29.1
    assert await lab.other.hold()
    assert not await lab.one.hold()
    assert (lab.spec["holderIdentity"], lab.spec["leaseTransitions"]) == ("other", 1)


async def test_who_lets_go_is_followed_at_once(lab: Lab) -> None:
    """A follower lets go of nothing."""
    await lab.one.hold()
    await lab.other.release()
    assert not await lab.other.hold()
    await lab.one.release()
    assert await lab.other.hold()


@pytest.mark.parametrize(("claimed", "waits"), [(1_000_000, 15.0 * MOST_FOREIGN), (60, 60.0), (1, 1.0), (None, 15.0)])
async def test_a_stranger_is_believed_within_bounds(lab: Lab, claimed: object, waits: float) -> None:
    """What it says it holds for, but not for days."""
    lab.claim(claimed)
    assert not await lab.one.hold()
    lab.now = waits - 0.1
    assert not await lab.one.hold()
    lab.now = waits
    assert await lab.one.hold()
