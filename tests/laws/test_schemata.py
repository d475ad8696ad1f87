"""Laws of schemata, of shares of caches, and of plans for groups."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from fakeresctrl import FakeBandwidth, FakeCache, FakeResctrl, Resources
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.plan.partitions import read, resolve
from noisegate.enforcement.plan.rdt import Group, Groups, MakeGroup, RemoveGroup, WriteSchemata, plan
from noisegate.enforcement.plan.schemata import MASKED, MEASURED, Cache, Machine, Schemata, differing, parse, write
from noisegate.enforcement.rdt import NodeRdt
from noisegate.service.faults import ConfigError

NUMBERS = st.integers(0, 0xFFFFFFFF)
SCHEMATA = st.dictionaries(
    st.sampled_from(MASKED + MEASURED), st.dictionaries(st.integers(0, 300), NUMBERS, min_size=1, max_size=6)
)
PERCENTS = st.integers(1, 100)
CACHES = st.builds(
    lambda ways, fewest: Cache((0,), (1 << ways) - 1, fewest, sparse=False, closids=16),
    st.integers(4, 32),
    st.integers(0, 3),
)


@given(SCHEMATA)
def test_written_and_read(schemata: Schemata) -> None:
    """What is written is read as the same, also as the kernel pads it; in this order and any other."""
    lines = write(schemata)
    assert parse("\n".join(lines)) == schemata
    assert parse("\n".join(f"   {line.replace('=', '=  ')}" for line in reversed(lines))) == schemata


@given(SCHEMATA, SCHEMATA)
def test_a_difference_makes_up_for_itself(wanted: Schemata, observed: Schemata) -> None:
    """What differs, written over what is there, gives what is wanted; then nothing differs."""
    rest = differing(wanted, observed)
    after = {name: {**observed.get(name, {}), **rest.get(name, {})} for name in {*observed, *rest}}
    assert differing(wanted, after) == {}
    assert differing(wanted, wanted) == {}


def mask_of(partition: str, share: str, cache: Cache) -> int:
    """Return the ways of a class with this share of a partition that is alone."""
    text = f'partitions: {{p: {{l3Allocation: "{partition}", classes: {{c: {{l3Allocation: "{share}"}}}}}}}}'
    return resolve(read(text, "c.yaml"), Machine({"L3": cache}, None, 16))["c"]["L3"][0]


def unbroken(mask: int) -> bool:
    """Tell whether a mask's ones stand together."""
    return "0" not in f"{mask:b}".strip("0")


@given(PERCENTS, PERCENTS, CACHES)
def test_more_percents_are_never_fewer_ways(first: int, second: int, cache: Cache) -> None:
    """A share is one block, as wide as the hardware wants at least, inside the cache; a larger one contains a smaller."""
    small, large = (mask_of("100%", f"{share}%", cache) for share in sorted((first, second)))
    for mask in (small, large):
        assert unbroken(mask)
        assert mask.bit_count() >= max(cache.min_bits, 1)
        assert mask | cache.mask == cache.mask
    assert small | large == large
    assert mask_of("100%", "100%", cache) == cache.mask


@given(st.tuples(PERCENTS, PERCENTS).map(sorted), CACHES)
def test_ranges_of_percents(ends: list[int], cache: Cache) -> None:
    """A range is one block, as wide as the hardware wants at least, inside the cache."""
    mask = mask_of("100%", f"{ends[0]}-{ends[1]}%", cache)
    assert unbroken(mask)
    assert mask.bit_count() >= max(cache.min_bits, 1)
    assert mask | cache.mask == cache.mask


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), CACHES)
def test_partitions_share_no_way(shares: list[int], cache: Cache) -> None:
    """Partitions have blocks that do not meet, each as wide as the hardware wants; or the file does not fit."""
    text = "partitions:" + "".join(
        f'\n  p{number}: {{l3Allocation: "{share}%", classes: {{c{number}: }}}}' for number, share in enumerate(shares)
    )
    fewest = max(cache.min_bits, 1)
    ways = sum(shares) * cache.mask.bit_length() // 100
    try:
        masks = [each["L3"][0] for each in resolve(read(text, "c.yaml"), Machine({"L3": cache}, None, 16)).values()]
    except ConfigError:
        assert sum(shares) > 100 or ways < fewest * len(shares)
        return
    assert all(unbroken(mask) and mask.bit_count() >= fewest for mask in masks)
    assert sum(mask.bit_count() for mask in masks) == ways
    assert sum(masks) | cache.mask == cache.mask


RESOURCES: Resources = {"L3": FakeCache((0, 1), ways=12, closids=6), "MB": FakeBandwidth((0, 1), closids=5)}
CLASSES = st.dictionaries(
    st.sampled_from([f"c{number}" for number in range(6)]),
    st.fixed_dictionaries({"l3Allocation": PERCENTS.map("{}%".format)}),
    max_size=6,
)


def class_file(classes: Mapping[str, Mapping[str, str]]) -> str:
    """Return a class file of one partition, in JSON's form of YAML."""
    inner = ", ".join(f'{name}: {{l3Allocation: "{given["l3Allocation"]}"}}' for name, given in classes.items())
    return f'partitions: {{p: {{l3Allocation: "100%", classes: {{{inner}}}}}}}'


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(CLASSES, st.sets(st.sampled_from([f"c{number}" for number in range(6)]))), min_size=1, max_size=4
    )
)
def test_groups_follow_any_row_of_class_files(files: list[tuple[dict[str, dict[str, str]], set[str]]]) -> None:
    """After each file: a second plan is empty, groups are right or told, used ones stay, foreign ones and the root too.

    In the end, without classes and threads, the machine is as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "resctrl"
        root.mkdir()
        fake = FakeResctrl(root, RESOURCES, rmids=0)
        fake.mkdir(root / "theirs")
        resctrl = Resctrl(root, fake.mountinfo, fake)
        before = (resctrl.names(), resctrl.root_schemata(), fake.shown(root / "theirs"))
        rdt = NodeRdt(resctrl, runtime_config="", starts_in_group=True)
        threads = iter(range(100, 1000))
        running: set[int] = set()
        for classes, started in files:
            rdt.load(read(class_file(classes), "c.yaml"))
            report = rdt.reconcile()
            assert rdt.reconcile()._replace(done=()) == report._replace(done=())
            assert rdt.report.done == ()
            told = {outcome.rdt_class for outcome in report.outcomes}
            groups = resctrl.groups()
            for name, schemata in resolve(read(class_file(classes), "c.yaml"), resctrl.machine()).items():
                assert name in told or groups.ours[f"noisegate-{name}"].schemata == schemata
            assert groups.ours.keys() <= {f"noisegate-{name}" for name in {*classes, *told}}
            for name in started & {group.removeprefix("noisegate-") for group in groups.ours}:
                running.add(thread := next(threads))
                fake.fork(1, thread)
                rdt.place(name, [thread])
            placed = {thread for group in groups.ours for thread in resctrl.tasks(group)}
            assert placed == running
        for thread in running:
            fake.end(thread)
        rdt.cleanup()
        assert (resctrl.names(), resctrl.root_schemata(), fake.shown(root / "theirs")) == before


@given(
    st.lists(st.integers(0, 7), unique=True),
    st.dictionaries(st.integers(0, 7), st.booleans()),
    st.integers(0, 3),
    st.integers(1, 10),
)
def test_no_plan_needs_more_closids_than_there_are(
    wanted: list[int], there: dict[int, bool], foreign: int, spare: int
) -> None:
    """Step by step no more groups are there than CLOSIDs; what cannot be made is told, and nothing used is removed."""
    ours = {f"noisegate-{number}": Group({"L3": {0: 1}}, used=used) for number, used in there.items()}
    machine = Machine({}, None, 1 + foreign + len(ours) + spare - 1)
    groups = Groups(ours, foreign=[str(number) for number in range(foreign)])
    steps = plan({str(number): {"L3": {0: 1}} for number in wanted}, groups, machine)
    names = set(ours)
    for action in steps.actions:
        match action:
            case MakeGroup(group):
                assert group not in names
                names.add(group)
            case RemoveGroup(group):
                assert not ours[group].used
                names.remove(group)
            case WriteSchemata(group):
                assert group in names
        assert 1 + foreign + len(names) <= machine.closids
    missing = {f"noisegate-{number}" for number in wanted} - names
    assert {f"noisegate-{each.rdt_class}" for each in steps.outcomes if each.reason == "ClosidsExhausted"} == missing
