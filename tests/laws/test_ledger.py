"""Laws of the ledger: what is written down is what is read, for whatever record."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.actions import Device, Interface, IoLimits, Rates
from noisegate.enforcement.intent.intent import Remembered
from noisegate.enforcement.ledger import IoSet, Ledger, Placed, Record, Shaped, decode, encode

# As they come: protobuf and JSON know no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(0, (1 << 63) - 1)
amounts = st.none() | numbers
devices = st.builds(Device, st.integers(0, 4095), st.integers(0, (1 << 20) - 1))
limits = st.builds(IoLimits, amounts, amounts, amounts, amounts)
records = st.builds(
    Record,
    uid=texts,
    namespace=texts,
    name=texts,
    intent=st.builds(
        Remembered,
        st.sampled_from(["watch", "runtime"]),
        texts,
        st.dictionaries(texts, texts, max_size=3),
        st.dictionaries(texts, st.dictionaries(texts, texts, max_size=2), max_size=2),
    ),
    sandbox=texts,
    cgroup=texts,
    inode=numbers,
    netns=texts,
    io=st.lists(st.builds(IoSet, devices, limits, limits), max_size=3).map(tuple),
    network=st.none()
    | st.builds(Shaped, st.builds(Interface, numbers, texts), texts, st.builds(Rates, amounts, amounts)),
    containers=st.lists(
        st.builds(Placed, texts, texts, st.dictionaries(texts, devices, max_size=2), texts), max_size=3
    ).map(tuple),
)


@given(records, texts)
def test_a_record_comes_back_as_it_was_written(record: Record, boot: str) -> None:
    """Record and boot; and the same record is always the same bytes."""
    data = encode(record, boot)
    assert decode(data) == (record, boot)
    assert encode(*decode(data)) == data


@given(st.lists(st.tuples(st.sampled_from(["put", "forget", "reopen"]), st.integers(0, 2), records), max_size=8))
def test_files_and_memory_agree(steps: list[tuple[str, int, Record]]) -> None:
    """After any sequence of changes, a ledger that is opened anew has what the old one had."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger, model = Ledger.open(folder, "b"), dict[str, Record]()
        for what, pod, record in steps:
            named = msgspec.structs.replace(record, uid=f"pod-{pod}")
            if what == "put":
                ledger.put(named)
                model[named.uid] = named
            elif what == "forget":
                ledger.forget(named.uid)
                model.pop(named.uid, None)
            else:
                ledger = Ledger.open(folder, "b")
            assert {one.uid: one for one in ledger.all()} == model
            assert all(ledger.get(uid) == one for uid, one in model.items())
        again = Ledger.open(folder, "b")
        assert {one.uid: one for one in again.all()} == model
        assert again.damaged == ()
