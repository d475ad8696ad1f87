"""`spec.config` of a NetworkAttachmentDefinition: CNI configuration, and what sriov-cni hands to the network card.

The text belongs to CNI plugins, so keys that are not checked here are left to them. Checked is what Multus needs to
start any plugin at all, and everything sriov-cni hands to the card: there it would fail when a pod starts, and the pod
would wait in ContainerCreating.

Go's encoding/json, through which Multus and sriov-cni read the text, takes keys in any case and treats null as absent;
so does this module.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeGuard

from noisegate.isolation.elements import is_mac
from noisegate.isolation.problems import Code, Findings, shown

PATH: Final = "spec.config"
MOST_VLANS: Final = 4094
MOST_QOS: Final = 7
MOST_RATE: Final = 2**32 - 1
"""Mbit/s; IFLA_VF_RATE carries unsigned 32-bit numbers (linux/if_link.h)."""

BAD_CONFIG: Final = Code(
    "NG421",
    "nad-bad-config",
    "spec.config is CNI configuration: one JSON object with the `type` of the plugin, or with `plugins`, a list of such objects, each key once.",
    'spec:\n  config: \'{"cniVersion": "0.3.1", "vlan": 100}\'',
    'spec:\n  config: \'{"cniVersion": "0.3.1", "type": "sriov", "vlan": 100}\'',
)
BAD_VLAN: Final = Code(
    "NG422",
    "nad-bad-vlan",
    "vlan is 0 (off) to 4094; vlanQoS, 0 to 7, and vlanProto, 802.1q or 802.1ad, need a vlan. Some network cards take 4095 without an error.",
    'spec:\n  config: \'{"type": "sriov", "vlan": 5000}\'',
    'spec:\n  config: \'{"type": "sriov", "vlan": 500}\'',
)
BAD_MAC: Final = Code(
    "NG423",
    "nad-bad-mac",
    "The MAC address of a virtual function is a unicast address that is not zero.",
    'spec:\n  config: \'{"type": "sriov", "mac": "01:00:5e:00:00:01"}\'',
    'spec:\n  config: \'{"type": "sriov", "mac": "02:00:5e:00:00:01"}\'',
)
BAD_SWITCH: Final = Code(
    "NG424",
    "nad-bad-switch",
    "spoofchk and trust are on or off (sriov-cni takes every other word for off), link_state is auto, enable or disable.",
    'spec:\n  config: \'{"type": "sriov", "trust": "yes"}\'',
    'spec:\n  config: \'{"type": "sriov", "trust": "on"}\'',
)
BAD_RATE: Final = Code(
    "NG425",
    "nad-bad-rate",
    "min_tx_rate and max_tx_rate are whole Mbit/s; 0 is no limit, and the smaller one is not above the larger one.",
    'spec:\n  config: \'{"type": "sriov", "min_tx_rate": 200, "max_tx_rate": 100}\'',
    'spec:\n  config: \'{"type": "sriov", "min_tx_rate": 100, "max_tx_rate": 200}\'',
)
NO_RESOURCE: Final = Code(
    "NG471",
    "nad-no-resource",
    "Warning: without a resource name no device is allocated for the attachment, and sriov-cni fails unless the pod names a device itself.",
    'spec:\n  config: \'{"type": "sriov"}\'',
    'metadata:\n  annotations:\n    k8s.v1.cni.cncf.io/resourceName: intel.com/sriov_a\nspec:\n  config: \'{"type": "sriov"}\'',
)
CODES: Final = (BAD_CONFIG, BAD_VLAN, BAD_MAC, BAD_SWITCH, BAD_RATE, NO_RESOURCE)

_SWITCHES: Final = (
    ("spoofchk", ("on", "off")),
    ("trust", ("on", "off")),
    ("link_state", ("auto", "enable", "disable")),
)
_MEANT: Final = {
    "true": "on", "yes": "on", "on": "on", "false": "off", "no": "off", "off": "off",
    "auto": "auto", "enable": "enable", "enabled": "enable", "up": "enable", "disable": "disable", "disabled": "disable", "down": "disable",
}  # fmt: skip

# encoding/json matches keys in any case; the names are those of sriov-cni and of the CNI specification.
_SRIOV_KEYS: Final = (
    "vlan",
    "vlanQoS",
    "vlanProto",
    "mac",
    "spoofchk",
    "trust",
    "link_state",
    "min_tx_rate",
    "max_tx_rate",
    "deviceID",
)
_CHECKED: Final = {name.casefold(): name for name in ("type", "plugins", *_SRIOV_KEYS)}


class _ConstantError(ValueError):
    """NaN or Infinity: Python's decoder takes them, JSON has no such values."""


def _refuse(constant: str) -> NoReturn:
    raise _ConstantError(f"{constant} is no JSON value")


def check_config(text: str, has_resource: bool, found: Findings) -> None:
    """Check `spec.config`. `has_resource`: whether the NetworkAttachmentDefinition names an extended resource."""
    try:
        config = json.loads(text, object_pairs_hook=tuple, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        found.deny(BAD_CONFIG, PATH, text, f"not well-formed JSON: {_explain(error)}")
        return
    fields = _fields(config, PATH, found)
    if fields is None:
        return
    kind = fields.get("type")
    if kind is None or kind == "":
        _check_plugins(fields.get("plugins"), has_resource, found)
    else:
        _check_plugin(fields, PATH, has_resource, found)


def _explain(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, _ConstantError):
        return str(error)
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"


def _check_plugins(plugins: object, has_resource: bool, found: Findings) -> None:
    path = f"{PATH}.plugins"
    if plugins is None:
        found.deny(BAD_CONFIG, PATH, "", "names no plugin: neither type nor plugins is there", 'write "type": "sriov"')
    elif not isinstance(plugins, list) or not plugins:
        found.deny(BAD_CONFIG, path, _plain(plugins), "plugins is a list of at least one plugin's configuration")
    else:
        for index, plugin in enumerate(plugins):
            fields = _fields(plugin, f"{path}[{index}]", found)
            if fields is not None:
                _check_plugin(fields, f"{path}[{index}]", has_resource, found)


def _fields(value: object, path: str, found: Findings) -> dict[str, Any] | None:
    """Return the keys of an object that are checked, by their proper names, or None where it is no object."""
    if not isinstance(value, tuple):
        found.deny(BAD_CONFIG, path, _plain(value), f"is {_kind(value)}; a plugin's configuration is a JSON object")
        return None
    fields: dict[str, Any] = {}
    twice: set[str] = set()
    for key, content in value:
        name = _CHECKED.get(key.casefold())
        if name is not None:
            if name in fields and name not in twice:
                twice.add(name)
                found.deny(
                    BAD_CONFIG,
                    f"{path}.{name}",
                    _plain(content),
                    f"{name} is given more than once; readers would take the last one",
                    "keep one",
                )
            fields[name] = content
    return fields


def _check_plugin(fields: Mapping[str, Any], path: str, has_resource: bool, found: Findings) -> None:
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        found.deny(
            BAD_CONFIG, f"{path}.type", _plain(kind), "type is the name of a CNI plugin", 'write "type": "sriov"'
        )
    elif kind == "sriov":
        _check_vlan(fields, path, found)
        _check_mac(fields.get("mac"), path, found)
        _check_switches(fields, path, found)
        _check_rates(fields, path, found)
        if not has_resource and not fields.get("deviceID"):
            found.warn(
                NO_RESOURCE,
                f"{path}.type",
                kind,
                "a network of type sriov has no resource name: no device will be allocated for it",
                "add the annotation k8s.v1.cni.cncf.io/resourceName",
            )


def _check_vlan(fields: Mapping[str, Any], path: str, found: Findings) -> None:
    vlan, qos, protocol = fields.get("vlan"), fields.get("vlanQoS"), fields.get("vlanProto")
    if vlan is not None and not _is_whole(vlan, MOST_VLANS):
        found.deny(
            BAD_VLAN,
            f"{path}.vlan",
            _plain(vlan),
            f"vlan {_text(vlan)} is not a whole number from 0 (off) to {MOST_VLANS}",
            _number_hint(vlan),
        )
    if qos is not None:
        if not _is_whole(qos, MOST_QOS):
            found.deny(
                BAD_VLAN,
                f"{path}.vlanQoS",
                _plain(qos),
                f"vlanQoS {_text(qos)} is not a whole number from 0 to {MOST_QOS}",
                _number_hint(qos),
            )
        elif vlan is None or (vlan == 0 and qos):
            found.deny(
                BAD_VLAN,
                f"{path}.vlanQoS",
                qos,
                f"vlanQoS {qos} needs a vlan{' from 1 to 4094' if qos else ''}",
                "set vlan, or leave vlanQoS out",
            )
    if protocol is not None:
        lowered = protocol.lower() if isinstance(protocol, str) else ""
        if lowered not in ("802.1q", "802.1ad"):
            found.deny(
                BAD_VLAN, f"{path}.vlanProto", _plain(protocol), f"vlanProto {_text(protocol)} is not 802.1q or 802.1ad"
            )
        elif vlan is None or (vlan == 0 and lowered == "802.1ad"):
            needs = "a vlan from 1 to 4094" if lowered == "802.1ad" else "a vlan"
            found.deny(
                BAD_VLAN,
                f"{path}.vlanProto",
                protocol,
                f"vlanProto {protocol} needs {needs}",
                "set vlan, or leave vlanProto out",
            )


def _check_mac(mac: object, path: str, found: Findings) -> None:
    if mac is None or mac == "" or (isinstance(mac, str) and is_mac(mac, 6)):
        return
    found.deny(
        BAD_MAC,
        f"{path}.mac",
        _plain(mac),
        f"{_text(mac)} is not a unicast MAC address of six bytes other than zero",
        "write it as 02:00:5e:00:00:01",
    )


def _check_switches(fields: Mapping[str, Any], path: str, found: Findings) -> None:
    for name, allowed in _SWITCHES:
        value = fields.get(name)
        if value is None or value == "" or value in allowed:
            continue
        meant = _MEANT.get(_text(value).lower(), "")
        listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        found.deny(
            BAD_SWITCH,
            f"{path}.{name}",
            _plain(value),
            f"{name} {_text(value)} is not {listed}",
            f"write {meant}" if meant in allowed else "",
        )


def _check_rates(fields: Mapping[str, Any], path: str, found: Findings) -> None:
    rates: list[int] = []
    for name in ("min_tx_rate", "max_tx_rate"):
        rate = fields.get(name)
        if rate is None:
            continue
        if _is_whole(rate, MOST_RATE):
            rates.append(rate)
            continue
        told = f"{name} {_text(rate)} is not a whole number of Mbit/s from 0 (no limit) to {MOST_RATE}"
        found.deny(BAD_RATE, f"{path}.{name}", _plain(rate), told, _number_hint(rate))
    if len(rates) == 2 and rates[0] > rates[1] > 0:
        found.deny(
            BAD_RATE,
            f"{path}.min_tx_rate",
            rates[0],
            f"min_tx_rate {rates[0]} Mbit/s is above max_tx_rate {rates[1]} Mbit/s",
            f"write at most {rates[1]}, or a larger max_tx_rate",
        )


def _is_whole(value: object, most: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= most


def _number_hint(value: object) -> str:
    """Return what to write where a number stands in quotes."""
    return (
        f"write {int(value)} without quotes"
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
        else ""
    )


def _plain(value: object) -> object:
    """Return a decoded value as a message may show it: objects and lists only by their kind."""
    return "{...}" if isinstance(value, tuple) else "[...]" if isinstance(value, list) else value


def _text(value: object) -> str:
    return shown(_plain(value))


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "null" if value is None else f"{_text(value)}"
