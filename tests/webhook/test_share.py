"""Room that is shared fairly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.webhook.share import Share


def test_everybody_is_served_while_there_is_room() -> None:
    """One client may take all of it."""
    share = Share(3)
    assert [share.take("a") for _ in range(4)] == [True, True, True, False]
    assert share.taken == 3


def test_client_with_less_than_its_share_is_served_when_all_is_taken() -> None:
    """With everything taken by one, a second gets its half and no more; a third its third."""
    share = Share(6)
    assert all(share.take("a") for _ in range(6))
    assert [share.take("b") for _ in range(4)] == [True, True, True, False]
    assert [share.take("c") for _ in range(3)] == [True, True, False]
    assert not share.take("a")


def test_what_is_given_back_can_be_taken_again() -> None:
    """Room that was given back is there for anybody; a client that holds nothing does not count as one."""
    share = Share(2)
    assert share.take("a", 2)
    share.give_back("a")
    assert share.take("b")
    share.give_back("a")
    share.give_back("b")
    assert share.taken == 0
    assert share.take("c", 2)


def test_smallest_share_is_one() -> None:
    """With more clients than room everybody still gets one."""
    share = Share(1)
    assert [share.take(name) for name in "abc"] == [True, True, True]
    assert not share.take("a")


def test_only_what_was_taken_can_be_given_back() -> None:
    """Giving back what a client does not hold is a mistake of the program."""
    with pytest.raises(KeyError):
        Share(1).give_back("a")


@given(st.integers(1, 20), st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_bound(room: int, steps: list[tuple[str, bool]]) -> None:
    """Whatever happens, never more than the documented bound is given out, and nobody without anything is refused."""
    share = Share(room)
    held = dict.fromkeys("abcd", 0)
    for client, take in steps:
        if take:
            taken = share.take(client)
            assert taken or held[client]
            held[client] += taken
        elif held[client]:
            share.give_back(client)
            held[client] -= 1
        assert share.taken == sum(held.values())
        assert share.taken <= room * (1 + 1 / 2 + 1 / 3 + 1 / 4) + 4
