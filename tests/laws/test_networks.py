"""Laws of the SR-IOV request: no text is too odd, what is written is read again, and order does not matter."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noisegate.isolation import nad, networks, sriov
from noisegate.isolation.catalogue import Catalogue, Network
from noisegate.isolation.keys import DEFAULT_NETWORK, NETWORKS
from noisegate.isolation.networks import Selection
from noisegate.isolation.policy import SriovPolicy
from noisegate.isolation.problems import Findings

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
PIECES = st.lists(
    st.sampled_from(
        ["a", "B", "_", "/", "@", ",", " ", "[", "]", "{", "}", '"', ":", "null", "name", "1", "\\", "\n", "é", "."]
    )
).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    [
        "name",
        "namespace",
        "ips",
        "mac",
        "infiniband-guid",
        "interface",
        "interfaceRequest",
        "portMappings",
        "bandwidth",
        "deviceID",
        "cni-args",
        "x",
    ]
)
ELEMENTS = st.lists(st.dictionaries(FIELDS, JSON, max_size=5), max_size=3).map(json.dumps)
CONFIG_KEYS = st.sampled_from(
    [
        "type",
        "plugins",
        "vlan",
        "VLAN",
        "vlanQoS",
        "vlanProto",
        "mac",
        "spoofchk",
        "trust",
        "link_state",
        "min_tx_rate",
        "max_tx_rate",
        "x",
    ]
)
CONFIG_VALUES = JSON | st.sampled_from(["sriov", "on", "802.1ad"])
CONFIGS = st.dictionaries(CONFIG_KEYS, CONFIG_VALUES).flatmap(
    lambda plugin: st.sampled_from([plugin, {"type": "sriov"} | plugin, {"plugins": [{"type": "sriov"} | plugin]}])
)


@st.composite
def plain(draw: st.DrawFn, key: str = NETWORKS) -> tuple[Selection, ...]:
    """Draw attachments."""
    found = []
    for position in range(draw(st.integers(1, 4))):
        rich = draw(st.booleans())
        found.append(
            Selection(
                key,
                position,
                draw(st.none() | LABEL),
                draw(LABEL | st.just("null")) + (draw(st.sampled_from(["", ".b"])) if rich else ""),
                draw(
                    st.just("")
                    | st.from_regex(r"[a-z]{1,15}", fullmatch=True)
                    | st.sampled_from(["Eth_0", "a.100"] if rich else ["net1"])
                ),
                draw(st.sampled_from(["", "02:00:00:00:00:01"])) if rich else "",
                draw(st.sampled_from(["", "24:8a:07:03:00:8d:ae:2e"])) if rich else "",
                draw(st.sampled_from([(), ("10.0.0.1",), ("::1/64", "10.0.0.1/8")])) if rich else (),
                draw(st.sampled_from(["", "0000:03:00.1"])) if rich else "",
            )
        )
    return tuple(found)


@given(st.sampled_from([NETWORKS, DEFAULT_NETWORK]), st.text() | PIECES | ELEMENTS | JSON.map(json.dumps))
def test_any_text_is_read(key: str, text: str) -> None:
    """Any text gives attachments or problems, never an exception, and nothing without a word."""
    found = Findings()
    selections = networks.read(key, text, found)

    assert selections or found.problems or found.warnings
    assert all(problem.message and "\n" not in str(problem) for problem in found.problems)


@given(plain())
def test_what_is_written_is_read_again(selections: tuple[Selection, ...]) -> None:
    """Writing attachments and reading them gives the same attachments."""
    found = Findings()

    assert networks.read(NETWORKS, networks.write(selections), found) == selections
    assert (found.problems, found.warnings) == ([], [])


@given(plain(), st.randoms(use_true_random=False))
def test_order_does_not_matter(selections: tuple[Selection, ...], random: Any) -> None:
    """The devices that are needed do not depend on the order of the elements."""
    known = {
        f"{selection.namespace or 'here'}/{selection.name}": Network(
            {nad.RESOURCE_NAME: f"intel.com/r{len(selection.name) % 3}"}, ""
        )
        for selection in selections
    }
    shuffled = list(selections)
    random.shuffle(shuffled)
    found = Findings()
    counts = [
        sriov.judge(each, "here", SriovPolicy(), Catalogue(networks=known), found).units
        for each in (selections, shuffled)
    ]

    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == len(selections)
    assert found.problems == []


@given(
    st.dictionaries(
        st.sampled_from([nad.RESOURCE_NAME, nad.NODE_SELECTOR, "openstack.org/kuryr-config"]),
        st.text() | JSON.map(json.dumps),
    ),
    st.text() | CONFIGS.map(json.dumps),
)
def test_any_definition_is_judged(annotations: dict[str, str], config: str) -> None:
    """Any NetworkAttachmentDefinition is judged, never an exception."""
    found = Findings()
    nad.check(annotations, config, found)

    assert all(problem.message and "\n" not in str(problem) for problem in found.problems)
