"""The class file."""

import pytest

from noisegate.isolation.catalogue import RdtClass
from noisegate.service.faults import ConfigError
from noisegate.service.rdtclasses import load

CACHE = 'allowed: a share "60%", bits "0-3" or a mask "0xf0", of one unbroken block'
CLASS_CACHE = 'allowed: a share "60%", a range of shares "20-60%", bits "0-3" or a mask "0xf0", of one unbroken block'
BANDWIDTH = 'allowed: a list of "1%" to "100%" and, for mba_MBps, a number such as "1000MBps"'


def _told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(text, "c.yaml")
    return [str(fault).removeprefix("c.yaml:") for fault in error.value.faults]


def test_classes_come_from_all_partitions() -> None:
    """Names and what annotations may not choose are read; every documented form of a share is taken."""
    text = """
options: {l2: {optional: true}, l3: {optional: true}, mb: }
partitions:
  exclusive:
    l2Allocation: "0x3"
    l3Allocation: 60%
    mbAllocation: [100%, 100000MBps]
    classes:
      guaranteed:
      reserved: {kubernetes: {denyPodAnnotation: true, denyContainerAnnotation: true}}
  shared:
    l3Allocation: {all: 40%, 2-3: "0-3,4", "5": {unified: 20%, code: 10%, data: "0xf0"}}
    mbAllocation: {all: [50%], "0,2-3": [10%, 1000MBps]}
    classes:
      bronze: {l3Allocation: 20-60%, mbAllocation: [50%], kubernetes: {denyPodAnnotation: yes}}
      "": {}
  empty:
"""
    assert load(text, "c.yaml") == {
        "guaranteed": RdtClass(),
        "reserved": RdtClass(deny_pod_annotation=True, deny_container_annotation=True),
        "bronze": RdtClass(deny_pod_annotation=True),
        "system/default": RdtClass(),
    }


def test_the_older_system_s_list_of_classes_is_taken() -> None:
    """`classes: [...]` gives names; its adjustments are not read."""
    text = "classes: [guaranteed, burstable, besteffort]\nupdateInterval: 30\nadjustments: {adjustment1: {threshold: {}}}\n"
    assert load(text, "c.yaml") == {"guaranteed": RdtClass(), "burstable": RdtClass(), "besteffort": RdtClass()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", ["1: the file has no classes; allowed: partitions, each with classes"], id="empty"),
        pytest.param(
            "\npartition: {}",
            ["2: partition: unknown key; allowed: options, partitions, classes, updateInterval, adjustments (write partitions)"],
            id="unknown-key",
        ),
        pytest.param(
            "partitions:\n  p:\n    classes:\n      a: {l3allocation: 50%}",
            [
                ("4: partitions.p.classes.a.l3allocation: unknown key; allowed: l2Allocation, l3Allocation, mbAllocation, "
                "kubernetes (write l3Allocation)")
            ],
            id="unknown-key-of-a-class",
        ),
        pytest.param(
            "classes: [a]\npartitions: {p: {classes: {b: {}}}}",
            ["1: classes: the file has partitions too; classes stand below the partitions then"],
            id="both-forms",
        ),
        pytest.param(
            "partitions:\n  p: {classes: {a: {}}}\n  q:\n    classes:\n      a: {}\n      system/default: {}\n      '': {}",
            [
                '5: partitions.q.classes.a: "a": the class is defined above already; a class stands in one partition',
                '7: partitions.q.classes[]: "system/default": the class is defined above already; a class stands in one partition',
            ],
            id="twice",
        ),
        pytest.param(
            f"classes: [a/b, .., a b, info, {'ü' * 200}]",
            [
                f'1: classes[{index}]: "{name}": {told}'
                for index, (name, told) in enumerate(
                    [
                        *(
                            (name, "a class name is 1 to 255 bytes without blanks and slashes and neither . nor .., or system/default")
                            for name in ("a/b", "..", "a b")
                        ),
                        ("info", "resctrl has an entry of this name itself; choose another"),
                        (
                            "ü" * 77 + "...",
                            "a class name is 1 to 255 bytes without blanks and slashes and neither . nor .., or system/default",
                        ),
                    ]
                )
            ],
            id="names",
        ),
        pytest.param(
            "partitions: {p: {classes: {a: {l3Allocation: 50%}}}}",
            [
                ("1: partitions.p.classes.a.l3Allocation: the class has a share of what its partition has not "
                "(add l3Allocation to the partition)")
            ],
            id="share-of-nothing",
        ),
        pytest.param(
            "partitions: {p: {l2Allocation: 100%, l3Allocation: {0-x: 100%, 3-2: 100%, '128': 100%}, classes: {a: {}}}}",
            [
                f'1: partitions.p.l3Allocation.{ids}: "{ids}": cache ids are "all" or numbers from 0 to 127, such as "0,2-3"'
                for ids in ("0-x", "3-2", "128")
            ],
            id="cache-ids",
        ),
        pytest.param(
            "partitions: {p: {l3Allocation: {all: {unifed: 100%}, '1': {unified: 1%, code: 1%}}}}",
            [
                "1: partitions.p.l3Allocation.all.unifed: unknown key; allowed: unified, code, data",
                "1: partitions.p.l3Allocation.all: unified is missing; code and data come on top of it",
                "1: partitions.p.l3Allocation.1: code and data go together",
            ],
            id="parts",
        ),
        pytest.param("partitions: {p: {mbAllocation: 50%}}", [f'1: partitions.p.mbAllocation: "50%": {BANDWIDTH} (write ["50%"])'], id="no-list"),
        pytest.param("partitions: {p: {mbAllocation: 50}}", [f"1: partitions.p.mbAllocation: 50: {BANDWIDTH}"], id="number"),
        pytest.param("partitions: {p: {mbAllocation: []}}", [f"1: partitions.p.mbAllocation: []: {BANDWIDTH}"], id="empty-list"),
    ],
)  # fmt: skip
def test_what_no_machine_could_do_is_refused(text: str, told: list[str]) -> None:
    """Each problem has line, key, value and what is allowed."""
    assert _told(text) == told


@pytest.mark.parametrize(
    "share", ["101%", "%", "1.5%", "0xf0f", "0x0", "0X1", "0xg", "0,2", "3-3", "0-64", "", "all", 60]
)
def test_shares_of_cache_are_unbroken(share: str | int) -> None:
    """Shares above 100 %, masks and bits with gaps or without ones, and other words are refused."""
    quoted = f'"{share}"' if isinstance(share, str) else share
    shown = f"{quoted}: " if share != "" else ""
    text = f"partitions: {{p: {{l3Allocation: {quoted}, classes: {{a: {{l3Allocation: {quoted}}}}}}}}}"
    assert _told(text) == [
        f"1: partitions.p.l3Allocation: {shown}{CACHE}",
        f"1: partitions.p.classes.a.l3Allocation: {shown}{CLASS_CACHE}",
    ]


@pytest.mark.parametrize("share", ["60-20%", "20-101%"])
def test_ranges_of_shares_rise_to_100(share: str) -> None:
    """A range begins no higher than it ends."""
    text = f"partitions: {{p: {{l3Allocation: 100%, classes: {{a: {{l3Allocation: {share}}}}}}}}}"
    assert _told(text) == [f'1: partitions.p.classes.a.l3Allocation: "{share}": {CLASS_CACHE}']


def test_ranges_of_shares_are_for_classes() -> None:
    """The library does not know where in the cache a partition's range would be."""
    assert _told("partitions: {p: {l3Allocation: 20-60%}}") == [f'1: partitions.p.l3Allocation: "20-60%": {CACHE}']


@pytest.mark.parametrize("share", ["101%", "50", "1GBps", "4294967296MBps", 50])
def test_shares_of_bandwidth_have_a_unit(share: str | int) -> None:
    """Percent up to 100, or MBps that fit 32 bits."""
    quoted = f'"{share}"' if isinstance(share, str) else share
    assert _told(f"partitions: {{p: {{mbAllocation: [{quoted}]}}}}") == [
        f"1: partitions.p.mbAllocation[0]: {quoted}: {BANDWIDTH}"
    ]
