"""`spec.config` of a NetworkAttachmentDefinition."""

import json

import pytest

from noisegate.isolation.cni import check_config
from noisegate.isolation.problems import Findings, Problem, shown

VLAN = "is not a whole number from 0 (off) to 4094"
QOS = "is not a whole number from 0 to 7"
RATE = "is not a whole number of Mbit/s from 0 (no limit) to 4294967295"
MAC = "is not a unicast MAC address of six bytes other than zero"
WRITE_MAC = "write it as 02:00:5e:00:00:01"


def check(config: object) -> Findings:
    """Check a configuration of a network that has a resource name."""
    found = Findings()
    check_config(config if isinstance(config, str) else json.dumps(config), True, found)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"vlan": 100}, id="vlan"),
        pytest.param({"vlan": 0}, id="vlan off"),
        pytest.param({"vlan": 4094, "vlanQoS": 7}, id="largest"),
        pytest.param({"vlan": 0, "vlanQoS": 0, "vlanProto": "802.1Q"}, id="as the operator writes it"),
        pytest.param({"vlan": 100, "vlanProto": "802.1q"}, id="protocol"),
        pytest.param({"vlan": 100, "vlanProto": "802.1AD"}, id="stacked"),
        pytest.param(
            {"vlan": None, "vlanQoS": None, "mac": None, "trust": None, "min_tx_rate": None}, id="null is absent"
        ),
        pytest.param({"mac": "CA:FE:C0:FF:EE:00"}, id="mac"),
        pytest.param({"mac": "", "spoofchk": "", "trust": "", "link_state": ""}, id="empty is absent to sriov-cni"),
        pytest.param({"spoofchk": "on", "trust": "off", "link_state": "auto"}, id="switches"),
        pytest.param({"link_state": "disable"}, id="link"),
        pytest.param({"min_tx_rate": 100, "max_tx_rate": 100}, id="rates"),
        pytest.param({"min_tx_rate": 100, "max_tx_rate": 0}, id="no upper limit"),
        pytest.param({"min_tx_rate": 100}, id="lower limit alone"),
        pytest.param({"max_tx_rate": 2**32 - 1}, id="largest rate"),
        pytest.param({"ipam": {"vlan": 5000, "x": None}, "logLevel": 7}, id="others' keys"),
    ],
)
def test_sound(fields: dict[str, object]) -> None:
    """What sriov-cni takes is taken, in a configuration of one plugin and in a list of plugins."""
    plugin = {"cniVersion": "0.3.1", "name": "n", "type": "sriov"} | fields

    for config in (plugin, {"name": "n", "plugins": [plugin, {"type": "tuning", "vlan": "?"}]}):
        found = check(config)
        assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("fields", "code", "place", "message", "hint"),
    [
        pytest.param({"vlan": 5000}, "NG422", "vlan", f"vlan 5000 {VLAN}", "", id="vlan"),
        pytest.param({"vlan": 4095}, "NG422", "vlan", f"vlan 4095 {VLAN}", "", id="some cards take 4095"),
        pytest.param({"vlan": -1}, "NG422", "vlan", f"vlan -1 {VLAN}", "", id="negative"),
        pytest.param({"vlan": "100"}, "NG422", "vlan", f"vlan 100 {VLAN}", "write 100 without quotes", id="text"),
        pytest.param({"vlan": 1.0}, "NG422", "vlan", f"vlan 1.0 {VLAN}", "", id="fraction"),
        pytest.param({"vlan": True}, "NG422", "vlan", f"vlan true {VLAN}", "", id="boolean"),
        pytest.param({"VLAN": 5000}, "NG422", "vlan", f"vlan 5000 {VLAN}", "", id="keys in any case"),
        pytest.param(
            {"vlanQoS": 1, "vlan": 0},
            "NG422",
            "vlanQoS",
            "vlanQoS 1 needs a vlan from 1 to 4094",
            "set vlan, or leave vlanQoS out",
            id="QoS",
        ),
        pytest.param(
            {"vlanQoS": 0},
            "NG422",
            "vlanQoS",
            "vlanQoS 0 needs a vlan",
            "set vlan, or leave vlanQoS out",
            id="QoS without vlan",
        ),
        pytest.param({"vlanQoS": 10, "vlan": 100}, "NG422", "vlanQoS", f"vlanQoS 10 {QOS}", "", id="large QoS"),
        pytest.param(
            {"vlanProto": "802.1ad", "vlan": 0},
            "NG422",
            "vlanProto",
            "vlanProto 802.1ad needs a vlan from 1 to 4094",
            "set vlan, or leave vlanProto out",
            id="stacked without vlan",
        ),
        pytest.param(
            {"vlanProto": "802.1Q"},
            "NG422",
            "vlanProto",
            "vlanProto 802.1Q needs a vlan",
            "set vlan, or leave vlanProto out",
            id="protocol alone",
        ),
        pytest.param(
            {"vlanProto": "802", "vlan": 100},
            "NG422",
            "vlanProto",
            "vlanProto 802 is not 802.1q or 802.1ad",
            "",
            id="protocol",
        ),
        pytest.param(
            {"vlanProto": 802.1, "vlan": 1},
            "NG422",
            "vlanProto",
            "vlanProto 802.1 is not 802.1q or 802.1ad",
            "",
            id="protocol's type",
        ),
        pytest.param(
            {"mac": "01:00:5e:00:00:01"}, "NG423", "mac", f"01:00:5e:00:00:01 {MAC}", WRITE_MAC, id="multicast"
        ),
        pytest.param({"mac": "00:00:00:00:00:00"}, "NG423", "mac", f"00:00:00:00:00:00 {MAC}", WRITE_MAC, id="zero"),
        pytest.param({"mac": "cafe"}, "NG423", "mac", f"cafe {MAC}", WRITE_MAC, id="no address"),
        pytest.param({"mac": 5}, "NG423", "mac", f"5 {MAC}", WRITE_MAC, id="mac's type"),
        pytest.param({"trust": "yes"}, "NG424", "trust", "trust yes is not on or off", "write on", id="word"),
        pytest.param(
            {"spoofchk": False},
            "NG424",
            "spoofchk",
            "spoofchk false is not on or off",
            "write off",
            id="boolean switch",
        ),
        pytest.param(
            {"spoofchk": "ON"}, "NG424", "spoofchk", "spoofchk ON is not on or off", "write on", id="capitals"
        ),
        pytest.param(
            {"link_state": "up"},
            "NG424",
            "link_state",
            "link_state up is not auto, enable or disable",
            "write enable",
            id="another's word",
        ),
        pytest.param(
            {"link_state": "on"},
            "NG424",
            "link_state",
            "link_state on is not auto, enable or disable",
            "",
            id="another switch's word",
        ),
        pytest.param({"trust": []}, "NG424", "trust", "trust [...] is not on or off", "", id="list"),
        pytest.param({"trust": {"a": 1}}, "NG424", "trust", "trust {...} is not on or off", "", id="object"),
        pytest.param({"min_tx_rate": -1}, "NG425", "min_tx_rate", f"min_tx_rate -1 {RATE}", "", id="negative rate"),
        pytest.param(
            {"max_tx_rate": "10"},
            "NG425",
            "max_tx_rate",
            f"max_tx_rate 10 {RATE}",
            "write 10 without quotes",
            id="rate as text",
        ),
        pytest.param(
            {"min_tx_rate": 200, "max_tx_rate": 100},
            "NG425",
            "min_tx_rate",
            "min_tx_rate 200 Mbit/s is above max_tx_rate 100 Mbit/s",
            "write at most 100, or a larger max_tx_rate",
            id="crossed",
        ),
    ],
)
def test_wrong(fields: dict[str, object], code: str, place: str, message: str, hint: str) -> None:
    """What the network card or sriov-cni would refuse, or silently take for something else, is refused."""
    plugin = {"type": "sriov"} | fields
    value = {key.lower(): value for key, value in fields.items()}[place.lower()]
    text = "[...]" if isinstance(value, list) else "{...}" if isinstance(value, dict) else shown(value)

    assert check(plugin).problems == [Problem(code, f"spec.config.{place}", text, message, hint)]
    chained = check({"plugins": [{"type": "bridge"}, plugin]})
    assert chained.problems == [Problem(code, f"spec.config.plugins[1].{place}", text, message, hint)]


@pytest.mark.parametrize(
    ("text", "place", "value", "message", "hint"),
    [
        pytest.param(
            "{",
            "",
            "{",
            "not well-formed JSON: line 1, column 2: Expecting property name enclosed in double quotes",
            "",
            id="cut",
        ),
        pytest.param('{"type": NaN}', "", '{"type": NaN}', "not well-formed JSON: NaN is no JSON value", "", id="NaN"),
        pytest.param(
            "1" * 5000,
            "",
            "1" * 77 + "...",
            "not well-formed JSON: a number in it has too many digits",
            "",
            id="digits",
        ),
        pytest.param(
            "[" * 100_000, "", "[" * 77 + "...", "not well-formed JSON: it is nested too deeply", "", id="nesting"
        ),
        pytest.param("[]", "", "[...]", "is a list; a plugin's configuration is a JSON object", "", id="list"),
        pytest.param("null", "", "", "is null; a plugin's configuration is a JSON object", "", id="null"),
        pytest.param("5", "", "5", "is 5; a plugin's configuration is a JSON object", "", id="number"),
        pytest.param(
            "{}", "", "", "names no plugin: neither type nor plugins is there", 'write "type": "sriov"', id="empty"
        ),
        pytest.param(
            '{"type": 5}', ".type", "5", "type is the name of a CNI plugin", 'write "type": "sriov"', id="type"
        ),
        pytest.param(
            '{"plugins": []}',
            ".plugins",
            "[...]",
            "plugins is a list of at least one plugin's configuration",
            "",
            id="no plugin",
        ),
        pytest.param(
            '{"plugins": {}}',
            ".plugins",
            "{...}",
            "plugins is a list of at least one plugin's configuration",
            "",
            id="plugins",
        ),
        pytest.param(
            '{"plugins": [5]}', ".plugins[0]", "5", "is 5; a plugin's configuration is a JSON object", "", id="plugin"
        ),
        pytest.param(
            '{"plugins": [{}]}',
            ".plugins[0].type",
            "",
            "type is the name of a CNI plugin",
            'write "type": "sriov"',
            id="no type",
        ),
        pytest.param(
            '{"type": "sriov", "vlan": 1, "VLAN": 2, "Vlan": 3}',
            ".vlan",
            "2",
            "vlan is given more than once; readers would take the last one",
            "keep one",
            id="twice",
        ),
    ],
)
def test_no_configuration(text: str, place: str, value: str, message: str, hint: str) -> None:
    """What Multus could not start a plugin from is refused."""
    assert check(text).problems == [Problem("NG421", f"spec.config{place}", value, message, hint)]


def test_other_plugins() -> None:
    """Configuration of other plugins is theirs, and so is every key that is not checked."""
    assert check('{"type": "bridge", "vlan": 5000, "x": 1, "x": 2}').problems == []


@pytest.mark.parametrize(("device", "warned"), [(None, True), ("", True), ("0000:03:02.0", False)])
def test_no_resource(device: str | None, warned: bool) -> None:
    """A network of type sriov without a resource name gets no device, unless it names one."""
    found = Findings()
    check_config(json.dumps({"type": "sriov", "deviceID": device}), False, found)

    expected = Problem(
        "NG471",
        "spec.config.type",
        "sriov",
        "a network of type sriov has no resource name: no device will be allocated for it",
        "add the annotation k8s.v1.cni.cncf.io/resourceName",
    )
    assert found.warnings == ([expected] if warned else [])
