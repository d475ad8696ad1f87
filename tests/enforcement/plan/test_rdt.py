"""Class files on machines, groups to be made and removed, owners, and what a container is answered."""

import pytest

from noisegate.enforcement.plan.partitions import PREFIX, read, resolve
from noisegate.enforcement.plan.rdt import (
    NOTHING,
    Facts,
    Group,
    Groups,
    MakeGroup,
    Outcome,
    Owner,
    RdtAdjustment,
    RemoveGroup,
    WriteSchemata,
    adjust,
    cleanup,
    owner_of,
    plan,
)
from noisegate.enforcement.plan.schemata import Bandwidth, Cache, Machine, differing, parse, write
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.rdt import Choice
from noisegate.service.faults import ConfigError

L3 = Cache((0, 1), 0xFFFFF, 1, sparse=False, closids=16)
PERCENT = Bandwidth((0, 1), 10, 10, "%", 8)
MIBPS = PERCENT._replace(unit="MiBps")
XEON = Machine({"L3": L3}, PERCENT, 8)
CDP = Machine({"L3CODE": L3, "L3DATA": L3}, None, 8)
PARTITIONS = """
options: {l2: {optional: true}}
partitions:
  exclusive:
    l2Allocation: "80%"
    l3Allocation: "60%"
    mbAllocation: ["100%"]
    classes:
      guaranteed: {l3Allocation: "100%"}
  shared:
    l2Allocation: "20%"
    l3Allocation: "40%"
    mbAllocation: ["50%"]
    classes:
      burstable: {l3Allocation: "100%"}
      besteffort: {l3Allocation: "50%"}
"""


def lines(text: str, machine: Machine = XEON) -> dict[str, list[str]]:
    """Return the lines of every class's schemata."""
    return {name: write(schemata) for name, schemata in resolve(read(text, "c.yaml"), machine).items()}


def faults(text: str, machine: Machine = XEON) -> list[str]:
    """Return what does not fit the machine."""
    with pytest.raises(ConfigError) as error:
        lines(text, machine)
    return [str(fault).removeprefix("c.yaml:") for fault in error.value.faults]


def shares(partition: str, class_share: str, **more: str) -> str:
    """Return a file of one partition and one class."""
    others = "\n".join(f"  {name}: {{l3Allocation: {share}}}" for name, share in more.items())
    return (
        f"partitions:\n  p: {{l3Allocation: {partition}, classes: {{c: {{l3Allocation: {class_share}}}}}}}\n{others}\n"
    )


def test_partitions_come_first_and_classes_have_shares_of_them() -> None:
    """The example of goresctrl's guide: 60 % of 20 ways for one partition, the rest for the other's two classes."""
    assert lines(PARTITIONS) == {
        "guaranteed": ["L3:0=fff;1=fff", "MB:0=100;1=100"],
        "burstable": ["L3:0=ff000;1=ff000", "MB:0=50;1=50"],
        "besteffort": ["L3:0=f000;1=f000", "MB:0=50;1=50"],
    }


@pytest.mark.parametrize(
    ("partition", "share", "mask"),
    [
        pytest.param('"100%"', '"1%"', "1", id="rounded up to the least"),
        pytest.param('"100%"', '"50%"', "3ff", id="half"),
        pytest.param('"100%"', '"51%"', "7ff", id="the way in which the 51st percent lies"),
        pytest.param('"100%"', '"20-60%"', "ff8", id="a range of percents"),
        pytest.param('"100%"', '"100-100%"', "80000", id="the last percent"),
        pytest.param('"0xff0"', '"0-3"', "f0", id="bits count from the partition's lowest way"),
        pytest.param('"0xff0"', '"0xf0"', "f00", id="a mask does too"),
        pytest.param('"4-11"', '"100%"', "ff0", id="the whole partition"),
        pytest.param('"4-11"', '"50%"', "f0", id="half of it"),
    ],
)
def test_forms_of_shares(partition: str, share: str, mask: str) -> None:
    """Every form means what it means to goresctrl (pkg/rdt/config.go)."""
    assert lines(shares(partition, share))["c"][0] == f"L3:0={mask};1={mask}"


def test_the_least_number_of_ways_holds() -> None:
    """Where the hardware wants two ways, a narrower range grows downwards, then upwards."""
    machine = Machine({"L3": L3._replace(min_bits=2)}, None, 8)
    assert lines(shares('"100%"', '"1%"'), machine)["c"] == ["L3:0=3;1=3"]
    assert lines(shares('"100%"', '"100-100%"'), machine)["c"] == ["L3:0=c0000;1=c0000"]


def test_small_partitions_leave_the_others_theirs() -> None:
    """Where there are just as many ways as partitions, each has one: what the small are rounded up by is not taken twice."""
    given = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 6, "f": 14}
    text = "partitions:" + "".join(
        f'\n  {name}: {{l3Allocation: "{share}%", classes: {{{name}: }}}}' for name, share in given.items()
    )
    machine = Machine({"L3": L3._replace(mask=(1 << 30) - 1)}, None, 8)
    assert lines(text, machine) == {name: [f"L3:0={1 << way:x};1={1 << way:x}"] for way, name in enumerate(given)}


def test_caches_may_have_shares_of_their_own() -> None:
    """`all` is for the caches that have no entry; without it they are whole."""
    text = """
partitions:
  p:
    l3Allocation: {all: "50%", "1": "0xff"}
    classes:
      c: {l3Allocation: {"0": "50%"}}
      d:
"""
    assert lines(text)["c"][0] == "L3:0=1f;1=ff"
    assert lines(text)["d"][0] == "L3:0=3ff;1=ff"


def test_code_and_data() -> None:
    """With CDP there are two masks: their own where given, else the one for both; without it that one alone."""
    text = """
partitions:
  p:
    l3Allocation: "50%"
    classes:
      c: {l3Allocation: {all: {unified: "100%", code: "20%", data: "80%"}}}
      d: {l3Allocation: "10%"}
"""
    assert lines(text, CDP) == {
        "c": ["L3CODE:0=3;1=3", "L3DATA:0=ff;1=ff"],
        "d": ["L3CODE:0=1;1=1", "L3DATA:0=1;1=1"],
    }
    assert lines(text, Machine({"L3": L3}, None, 8))["c"] == ["L3:0=3ff;1=3ff"]


def test_code_and_data_of_partitions() -> None:
    """Partitions divide code and data apart, each with all of its ways."""
    text = """
partitions:
  a: {l3Allocation: {all: {unified: "50%", code: "80%", data: "20%"}}, classes: {c: }}
  b: {l3Allocation: {all: {unified: "50%", code: "20%", data: "80%"}}, classes: {d: }}
"""
    assert lines(text, CDP) == {
        "c": ["L3CODE:0=ffff;1=ffff", "L3DATA:0=f;1=f"],
        "d": ["L3CODE:0=f0000;1=f0000", "L3DATA:0=ffff0;1=ffff0"],
    }


def test_bandwidth() -> None:
    """A class has its percentage of its partition's, at least the machine's minimum, rounded up to its step."""
    text = """
partitions:
  p:
    mbAllocation: ["50%", "2000MBps"]
    classes:
      half: {mbAllocation: ["50%", "1000MBps"]}
      more: {mbAllocation: {all: ["100%", "9000MBps"], "1": ["1%", "1MBps"]}}
      all:
"""
    assert {name: each[-1] for name, each in lines(text).items()} == {
        "half": "MB:0=30;1=30",
        "more": "MB:0=50;1=10",
        "all": "MB:0=50;1=50",
    }
    assert {name: each[-1] for name, each in lines(text, XEON._replace(bandwidth=MIBPS)).items()} == {
        "half": "MB:0=1000;1=1000",
        "more": "MB:0=2000;1=1",
        "all": "MB:0=2000;1=2000",
    }


def test_without_shares_a_class_has_everything() -> None:
    """A resource that the file does not name is written whole, so that nothing of an older file stays."""
    assert lines("partitions: {p: {classes: {c: }}}") == {"c": ["L3:0=fffff;1=fffff", "MB:0=100;1=100"]}


def test_the_root_group_s_class() -> None:
    """An empty name and `system/default` are one class for goresctrl; it is resolved like any other."""
    assert lines('partitions: {p: {l3Allocation: "50%", classes: {"": }}}')["system/default"][0] == "L3:0=3ff;1=3ff"


@pytest.mark.parametrize(
    ("text", "machine", "told"),
    [
        pytest.param(
            shares('"60%"', '"50%"', q='"50%"'),
            XEON,
            ["2: partitions.p.l3Allocation: the partitions' shares of cache 0 are 110 % together; allowed: 100 %"],
            id="too much",
        ),
        pytest.param(
            shares('"1%"', '"50%"', q='"2%"'),
            XEON,
            [
                "3: partitions.q.l3Allocation: 3 % of cache 0 are 0 of 20 ways, and 2 partitions need 1 each",
            ],
            id="too little",
        ),
        pytest.param(
            shares('"0xff"', '"50%"', q='"0xf80"'),
            XEON,
            [
                '3: partitions.q.l3Allocation: "0xf80": overlaps with partition p in cache 0; partitions share no ways',
            ],
            id="overlap",
        ),
        pytest.param(
            shares('"0xff"', '"50%"', q='"50%"'),
            XEON,
            [
                (
                    '3: partitions.q.l3Allocation: "50%": other partitions have masks for cache 0; '
                    "a cache is divided by shares or by masks"
                ),
            ],
            id="masks and shares",
        ),
        pytest.param(
            shares('"16-23"', '"50%"'),
            XEON,
            ['2: partitions.p.l3Allocation: "16-23": cache 0 has the ways of 0xfffff only (20 of them)'],
            id="beyond the cache",
        ),
        pytest.param(
            shares('"0xff"', '"0x1ff"'),
            XEON,
            [
                (
                    '2: partitions.p.classes.c.l3Allocation: "0x1ff": counted from the partition\'s lowest way; '
                    "the partition has 8 ways (0xff)"
                )
            ],
            id="beyond the partition",
        ),
        pytest.param(
            shares('"0xff"', '"0x1"', q='"0x100"'),
            Machine({"L3": L3._replace(min_bits=2)}, None, 8),
            [
                '2: partitions.p.classes.c.l3Allocation: "0x1": this node wants 2 ways or more in a mask',
                '3: partitions.q.l3Allocation: "0x100": cache 0 wants 2 ways or more in a mask',
            ],
            id="fewer ways than the hardware takes",
        ),
        pytest.param(
            shares('"100%"', '"0%"'),
            XEON,
            [
                (
                    '2: partitions.p.classes.c.l3Allocation: "0%": a class needs a way of the cache at least; '
                    "allowed: 1% to 100%"
                )
            ],
            id="nothing",
        ),
        pytest.param(
            'partitions:\n  p: {l3Allocation: "50%"}\n  q: {classes: {c: }}\n',
            XEON,
            [
                (
                    "3: partitions.q.l3Allocation: l3Allocation is missing; "
                    "other partitions have one, and a cache is divided among all of them"
                )
            ],
            id="a partition without",
        ),
        pytest.param(
            'partitions:\n  p: {l3Allocation: {all: {unified: "50%", code: "50%", data: "50%"}}}\n'
            '  q: {l3Allocation: "50%", classes: {c: }}\n',
            CDP,
            ["3: partitions.q.l3Allocation: code is missing; other partitions have one for cache 0"],
            id="code for some",
        ),
        pytest.param(
            'partitions:\n  p: {l2Allocation: "50%", l3Allocation: "50%", mbAllocation: ["5%"], classes: {c: }}\n',
            Machine({"L2": L3}, None, 4),
            [
                "2: partitions.p.l3Allocation: this node cannot share out its L3 cache (set options.l3.optional: true)",
                (
                    "2: partitions.p.mbAllocation: this node cannot share out memory bandwidth "
                    "(set options.mb.optional: true)"
                ),
            ],
            id="not there",
        ),
        pytest.param(
            'partitions:\n  p: {mbAllocation: ["5%"], classes: {c: }}\n',
            Machine({"L3": L3}, Bandwidth((0,), 0, 1, "GBps/8", 16), 4),
            [
                (
                    "2: partitions.p.mbAllocation: this node shares out memory bandwidth in GBps/8; "
                    "allowed in a class file: % and MBps (set options.mb.optional: true)"
                )
            ],
            id="amd",
        ),
        pytest.param(
            'partitions:\n  p: {mbAllocation: ["5%"], classes: {c: }}\n',
            XEON._replace(bandwidth=MIBPS),
            [
                (
                    '2: partitions.p.mbAllocation: ["5%"]: has no entry in MBps, and this node shares out memory '
                    'bandwidth in MiBps (add one such as "1000MBps")'
                )
            ],
            id="no entry in the node's unit",
        ),
        pytest.param(
            "classes: [gold, silver]",
            XEON,
            [
                (
                    "1: classes: the file names classes only; groups are made from partitions, each with its classes "
                    "(write partitions: {default: {classes: {...}}})"
                )
            ],
            id="names only",
        ),
    ],
)
def test_what_does_not_fit(text: str, machine: Machine, told: list[str]) -> None:
    """All of it at once, each place once, with value, what is allowed and its unit."""
    assert faults(text, machine) == told


def test_optional_resources_may_be_missing() -> None:
    """What `options` calls optional is left out where the machine has not got it."""
    text = """
options: {l3: {optional: true}, mb: {optional: true}}
partitions: {p: {l3Allocation: "50%", mbAllocation: ["50%"], classes: {c: }}}
"""
    assert lines(text, Machine({"L2": L3._replace(ids=(3,))}, None, 4)) == {"c": ["L2:3=fffff"]}


def test_a_class_that_has_no_room_for_a_group_s_name() -> None:
    """A group's name is ours and the class's together, 255 bytes at most."""
    longest = "c" * (255 - len(PREFIX))
    assert list(read(f"partitions: {{p: {{classes: {{{longest}: }}}}}}", "c.yaml").classes) == [longest]
    with pytest.raises(ConfigError, match="allowed: 245 bytes"):
        read(f"partitions: {{p: {{classes: {{{longest}c: }}}}}}", "c.yaml")


WANTED = resolve(read(PARTITIONS, "c.yaml"), XEON)
GUARANTEED, BURSTABLE, BESTEFFORT = (f"{PREFIX}{name}" for name in WANTED)
APPLIED = Groups({f"{PREFIX}{name}": Group(schemata) for name, schemata in WANTED.items()})


def test_groups_are_made_and_filled_in_the_order_of_the_file() -> None:
    """Each group gets its schemata right after it is made."""
    steps = plan(WANTED, Groups({}), XEON)
    assert steps.outcomes == ()
    assert steps.actions == (
        MakeGroup(GUARANTEED),
        WriteSchemata(GUARANTEED, WANTED["guaranteed"]),
        MakeGroup(BURSTABLE),
        WriteSchemata(BURSTABLE, WANTED["burstable"]),
        MakeGroup(BESTEFFORT),
        WriteSchemata(BESTEFFORT, WANTED["besteffort"]),
    )


def test_what_is_so_stays() -> None:
    """The plan of an applied state is empty."""
    assert plan(WANTED, APPLIED, XEON) == ((), ())


def test_only_what_differs_is_written() -> None:
    """A class that changed, or that somebody wrote over, is written where it differs."""
    there = {**APPLIED.ours, BURSTABLE: Group({**WANTED["burstable"], "MB": {0: 50, 1: 90}}, used=True)}
    assert plan(WANTED, Groups(there), XEON).actions == (WriteSchemata(BURSTABLE, {"MB": {1: 50}}),)


def test_what_is_no_longer_wanted_goes_first() -> None:
    """A removed class gives its CLOSID to a new one; foreign groups count and stay."""
    there = Groups({f"{PREFIX}old": Group({}), GUARANTEED: APPLIED.ours[GUARANTEED]}, foreign=("theirs",))
    steps = plan(
        {"guaranteed": WANTED["guaranteed"], "burstable": WANTED["burstable"]}, there, XEON._replace(closids=4)
    )
    assert steps.outcomes == ()
    assert steps.actions == (
        RemoveGroup(f"{PREFIX}old"),
        MakeGroup(BURSTABLE),
        WriteSchemata(BURSTABLE, WANTED["burstable"]),
    )


@pytest.mark.parametrize(("used", "in_use"), [(True, ()), (False, ("old",))])
def test_a_class_that_left_while_it_is_used(*, used: bool, in_use: tuple[str, ...]) -> None:
    """Its group stays until it is empty: tasks in it, or a container about to start, keep it."""
    there = Groups({**APPLIED.ours, f"{PREFIX}old": Group({}, used=used)})
    steps = plan(WANTED, there, XEON, in_use)
    assert steps.actions == ()
    assert [(each.rdt_class, each.reason) for each in steps.outcomes] == [("old", "ClassKept")]


def test_closids_that_do_not_suffice() -> None:
    """The first classes of the file are served; the others are told why they are not."""
    steps = plan(WANTED, Groups({}, foreign=("a", "b")), XEON._replace(closids=4))
    assert steps.actions == (MakeGroup(GUARANTEED), WriteSchemata(GUARANTEED, WANTED["guaranteed"]))
    assert [(each.rdt_class, each.reason) for each in steps.outcomes] == [
        ("burstable", "ClosidsExhausted"),
        ("besteffort", "ClosidsExhausted"),
    ]
    assert steps.outcomes[0].told == (
        "no CLOSID is left for RDT class burstable: the machine has 4, one is the root group's, "
        "2 are of groups that are not ours"
    )


def test_a_pseudo_locked_group_of_ours() -> None:
    """A group that takes no tasks is told and left."""
    there = {**APPLIED.ours, BURSTABLE: Group({}, mode="pseudo-locked")}
    steps = plan(WANTED, Groups(there), XEON)
    assert steps.actions == ()
    assert [each.reason for each in steps.outcomes] == ["GroupNotShareable"]


def test_the_root_group_is_not_written() -> None:
    """A share for system/default is told as not given, unless the root group is so already."""
    wanted = {"system/default": {"L3": {0: 0xF}}}
    steps = plan(wanted, Groups({}, root={"L3": {0: 0xFFFFF}}), XEON)
    assert (steps.actions, [each.reason for each in steps.outcomes]) == ((), ["RootGroupKept"])
    assert plan(wanted, Groups({}, root={"L3": {0: 0xF}}), XEON) == ((), ())


def test_cleaning_up() -> None:
    """Every empty group of ours goes; one with tasks is told."""
    steps = cleanup(Groups({BURSTABLE: Group({}), BESTEFFORT: Group({}, used=True)}, foreign=("theirs",)))
    assert steps.actions == (RemoveGroup(BURSTABLE),)
    assert [each.reason for each in steps.outcomes] == ["ClassKept"]


NO_RESCTRL = Refusal("ResctrlNotMounted", "resctrl is not mounted at /r", "mount it")
NO_RUNC = Refusal("RuncFeaturesUnknown", "runc features cannot be run: No such file or directory", "name it")


@pytest.mark.parametrize(
    ("facts", "who", "why"),
    [
        pytest.param(Facts("", None, True, True), "enforcer", "resctrl is mounted", id="ours"),
        pytest.param(Facts("/etc/rdt.yaml", None, False, False), "runtime", "(/etc/rdt.yaml)", id="the runtime's"),
        pytest.param(Facts("/etc/rdt.yaml", NO_RESCTRL, True, True), "none", "not mounted at /r", id="no resctrl"),
        pytest.param(Facts("", None, True, False), "none", "there is no class file", id="no class file"),
        pytest.param(Facts("", None, True, True, enforced=False), "none", "RDT is switched off", id="switched off"),
        pytest.param(
            Facts("/etc/rdt.yaml", None, True, False, enforced=False), "runtime", "(/etc/rdt.yaml)", id="off here only"
        ),
        pytest.param(Facts("", None, False, True), "none", "does not say that it can", id="runc that does not say so"),
        pytest.param(Facts("", None, NO_RUNC, True), "none", "is not known: runc features cannot be run", id="no runc"),
    ],
)
def test_owners(facts: Facts, who: str, why: str) -> None:
    """The runtime where it has an RDT configuration, else this program where everything is there, else nobody."""
    owner = owner_of(facts)
    assert (owner.who, why in owner.why) == (who, True)


def test_a_runc_that_could_not_be_asked_is_not_called_old() -> None:
    """What is to be mended is why it did not answer; only one that answered is to be replaced by a newer one."""
    assert owner_of(Facts("", None, NO_RUNC, True)).mend == "name it"
    assert owner_of(Facts("", None, False, True)).mend == "use runc 1.2 or newer"


OURS, THEIRS = Owner("enforcer", "so"), Owner("runtime", "so")
NOBODY = Owner("none", "resctrl is not mounted at /r", "mount it")
KNOWN = frozenset({"gold", "silver"})


def own(name: str) -> Choice:
    """Return a class chosen by our key."""
    return Choice(name, "noisegate.io/rdt-class", own=True)


@pytest.mark.parametrize(
    ("choice", "owner", "answer"),
    [
        pytest.param(own("gold"), OURS, RdtAdjustment(clos_id="noisegate-gold"), id="our group"),
        pytest.param(own("gold"), THEIRS, RdtAdjustment(rdt_class="gold"), id="the runtime's class"),
        pytest.param(own("gold")._replace(own=False), OURS, NOTHING, id="the runtime's key"),
        pytest.param(own("system/default"), OURS, NOTHING, id="the root group"),
        pytest.param(own("system/default"), NOBODY, NOTHING, id="the root group, without an owner"),
        pytest.param(None, NOBODY, NOTHING, id="no class"),
    ],
)
def test_answers(choice: Choice | None, owner: Owner, answer: RdtAdjustment) -> None:
    """What goes into the adjustment depends on the key and on the owner."""
    assert adjust(choice, owner, KNOWN) == answer


@pytest.mark.parametrize(
    ("choice", "owner", "reason", "told"),
    [
        pytest.param(
            own("gold"),
            NOBODY,
            "RdtNotAvailable",
            "RDT class gold cannot be given on this node: resctrl is not mounted at /r (mount it)",
            id="no owner",
        ),
        pytest.param(
            own("gould"),
            THEIRS,
            "RdtClassUnknown",
            "RDT class gould is unknown on this node; known: gold, silver (write gold)",
            id="misspelt",
        ),
        pytest.param(own("bronze"), OURS, "ClosidsExhausted", "no more", id="a class that could not be made"),
    ],
)
def test_refusals(choice: Choice, owner: Owner, reason: str, told: str) -> None:
    """A container that cannot have its class does not start, and is told why."""
    with pytest.raises(Refusal) as error:
        adjust(choice, owner, KNOWN, [Outcome("x", "Y", "z"), Outcome("bronze", "ClosidsExhausted", "no more")])
    assert (error.value.reason, str(error.value)) == (reason, told)


def test_the_kernel_s_form_is_read() -> None:
    """Names and numbers are padded; resources that are not known, and groups without values, are left out."""
    text = "    MB:0=2048;1=  16\nL3CODE:0=00ff;8=f\nL4:0=1\n    L3:uninitialized\n\n"
    assert parse(text) == {"MB": {0: 2048, 1: 16}, "L3CODE": {0: 0xFF, 8: 0xF}}


def test_what_differs() -> None:
    """A part that is not there, or is otherwise, differs."""
    assert differing({"L3": {0: 1, 1: 2}, "MB": {0: 3}}, {"L3": {0: 1, 1: 3}}) == {"L3": {1: 2}, "MB": {0: 3}}
