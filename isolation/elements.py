"""Network selection elements in JSON: every field of one, checked (pod-api.md 4).

The fields are those of `NetworkSelectionElement` in network-attachment-definition-client and in multus-cni. Neither
Multus nor network-resources-injector checks all of them; what they let pass fails in a CNI plugin when the pod starts.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Code, shown

BAD_NAME: Final = Code(
    "NG401",
    "networks-bad-name",
    "An element names a NetworkAttachmentDefinition as [namespace/]name, of lower-case letters, digits and hyphens.",
    "k8s.v1.cni.cncf.io/networks: Fast,net_2",
    "k8s.v1.cni.cncf.io/networks: fast,net-2",
)
BAD_INTERFACE: Final = Code(
    "NG402",
    "networks-bad-interface",
    "The kernel takes interface names of 1 to 15 characters; in a comma list they are lower-case letters, digits and hyphens.",
    "k8s.v1.cni.cncf.io/networks: fast@averylonginterface",
    "k8s.v1.cni.cncf.io/networks: fast@net1",
)
BAD_ADDRESS: Final = Code(
    "NG403",
    "networks-bad-address",
    "A MAC address, InfiniBand GUID or IP address is not one, or cannot be an interface's.",
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "ips": ["10.0.0.300/24"]}]\'',
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "ips": ["10.0.0.30/24"]}]\'',
)
BAD_NUMBER: Final = Code(
    "NG404",
    "networks-bad-number",
    "Ports are 1 to 65535 with protocol tcp, udp or sctp; bandwidth is in bits per second, and a rate and its burst go together.",
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "bandwidth": {"ingressRate": 1000000}}]\'',
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "bandwidth": {"ingressRate": 1000000, "ingressBurst": 80000}}]\'',
)
OLD_FIELD: Final = Code(
    "NG451",
    "networks-old-field",
    "Warning: interfaceRequest is the old name of interface, and newer programs do not read it.",
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "interfaceRequest": "net1"}]\'',
    'k8s.v1.cni.cncf.io/networks: \'[{"name": "fast", "interface": "net1"}]\'',
)
LONGEST_INTERFACE: Final = 15
"""IFNAMSIZ - 1 (linux/if.h)."""
LONGEST_NAMESPACE: Final = 63
LONGEST_NAME: Final = 253
MOST_PORTS: Final = 65535

MOST_RATE: Final = 2**32 * 8 - 1
"""The bandwidth plugin's largest burst, in bits; for rates, 34 Gbit/s would be too little."""

LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
NAMESPACE: Final = re.compile(LABEL)
NAME: Final = re.compile(rf"{LABEL}(?:\.{LABEL})*")
# What the kernel's dev_valid_name refuses, besides "%", which it reads as a pattern when an interface is renamed.
INTERFACE: Final = re.compile(r"(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}")

# The shapes of Go's net.ParseMAC: 6, 8 or 20 bytes by colons, hyphens or, two at a time, dots.
_MAC: Final = re.compile(
    r"[0-9a-f]{2}(?::[0-9a-f]{2})+|[0-9a-f]{2}(?:-[0-9a-f]{2})+|[0-9a-f]{4}(?:\.[0-9a-f]{4})+", re.IGNORECASE
)
_MAC_BYTES: Final = (6, 8, 20)
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")
_NOT_HEX: Final = re.compile(r"[-:.]")


def is_mac(text: str, *lengths: int) -> bool:
    """Tell whether a text is a hardware address that an interface can have, of one of these numbers of bytes.

    Neither zero nor, where it has the six bytes of Ethernet, a multicast address: the kernel refuses both.
    """
    if not _MAC.fullmatch(text):
        return False
    digits = _NOT_HEX.sub("", text)
    return (
        len(digits) // 2 in lengths and digits.strip("0") != "" and (len(digits) != 12 or not int(digits[:2], 16) & 1)
    )


def is_ip(text: str) -> bool:
    """Tell whether Go's net.ParseIP takes a text: no zone, no leading zeros."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def check_element(element: object, index: int, payload: Payload) -> dict[str, Any] | None:
    """Return the fields of an element of a JSON list, `interfaceRequest` as `interface`, or None where they cannot be meant."""
    before = len(payload.found.problems)
    members = payload.members(element, _KNOWN_FIELDS, index)
    if members is None:
        return None
    for field, value in members.items():
        _FIELDS[field](value, payload, index, field)
    if "name" not in members:
        payload.deny(BAD_NAME, "", "the element names no network: name is missing", index, hint='add "name"')
    old = members.get("interfaceRequest")
    if old is not None and members.setdefault("interface", old) != old:
        payload.deny(
            BAD_INTERFACE,
            old,
            "interface and its old name, interfaceRequest, differ",
            index,
            "interfaceRequest",
            hint="keep interface",
        )
    return members if len(payload.found.problems) == before else None


def mended(name: str) -> str:
    """Return the hint for a name that is right but for capitals, underscores or blanks."""
    right = name.strip().lower().replace("_", "-")
    return f"write {right}" if right != name and NAME.fullmatch(right) else ""


def shorter(interface: str) -> str:
    """Return the hint for an interface that is right but for its length."""
    short = interface[:LONGEST_INTERFACE]
    return f"write {short}" if len(interface) > LONGEST_INTERFACE and INTERFACE.fullmatch(short) else ""


Check = Callable[..., None]
"""Checks a value, and reports what is wrong with it: `check(value, payload, *steps)`."""


def _check_name(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not (NAME.fullmatch(text) and len(text) <= LONGEST_NAME):
        told = f'name "{shown(text)}" is not 1 to {LONGEST_NAME} lower-case letters, digits, hyphens and dots'
        payload.deny(BAD_NAME, text, told if text else "the name is empty", *steps, hint=mended(text))


def _check_namespace(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not (NAMESPACE.fullmatch(text) and len(text) <= LONGEST_NAMESPACE):
        told = f'namespace "{shown(text)}" is not 1 to {LONGEST_NAMESPACE} lower-case letters, digits and hyphens'
        payload.deny(
            BAD_NAME,
            text,
            told if text else "the namespace is empty",
            *steps,
            hint=mended(text) if text else "leave it out",
        )


def _check_interface(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not INTERFACE.fullmatch(text):
        told = f'interface "{shown(text)}" is not 1 to {LONGEST_INTERFACE} printable characters without blanks, "/", ":" and "%"'
        payload.deny(BAD_INTERFACE, text, told, *steps, hint=shorter(text))


def _check_old_interface(value: object, payload: Payload, *steps: str | int) -> None:
    payload.warn(OLD_FIELD, value, "interfaceRequest is the old name of interface", *steps, hint='write "interface"')
    _check_interface(value, payload, *steps)


def _check_mac(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not is_mac(text, *_MAC_BYTES):
        told = f'"{shown(text)}" is not a unicast hardware address of 6, 8 or 20 bytes other than zero'
        payload.deny(BAD_ADDRESS, text, told, *steps, hint="write it as 02:00:5e:00:00:01")


def _check_guid(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not is_mac(text, 8):
        payload.deny(
            BAD_ADDRESS,
            text,
            f'"{shown(text)}" is not a GUID of 8 bytes other than zero',
            *steps,
            hint="write it as 24:8a:07:03:00:8d:ae:2e",
        )


def _check_ip(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and not is_ip(text):
        payload.deny(BAD_ADDRESS, text, f'"{shown(text)}" is not an IP address', *steps)


def _check_ip_or_prefix(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is None:
        return
    address, slash, length = text.partition("/")
    most = 128 if ":" in address else 32
    if not is_ip(address) or (slash and not (_LENGTH.fullmatch(length) and int(length) <= most)):
        payload.deny(
            BAD_ADDRESS,
            text,
            f'"{shown(text)}" is not an IP address, alone or with a prefix length as in 10.0.0.3/24',
            *steps,
        )


def _check_text(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and (not text or text != text.strip()):
        payload.deny(
            BAD_NAME,
            text,
            f"{steps[-1]} is {'empty' if not text else 'not free of blanks at its ends'}",
            *steps,
            hint="leave it out",
        )


def _check_arguments(value: object, payload: Payload, *steps: str | int) -> None:
    # Multus' own type writes `"cni-args": null` where there are none. What is inside belongs to the CNI plugin.
    if value is not None and type(value) is not dict:
        payload.wrong_type(value, "an object", *steps)


def _check_protocol(value: object, payload: Payload, *steps: str | int) -> None:
    text = payload.string(value, *steps)
    if text is not None and text.lower() not in ("tcp", "udp", "sctp"):
        payload.deny(BAD_NUMBER, text, f'protocol "{shown(text)}" is not tcp, udp or sctp', *steps)


def _check_port(value: object, payload: Payload, *steps: str | int) -> None:
    if type(value) is not int:
        payload.wrong_type(value, "a whole number", *steps, hint="write digits only, without quotes")
    elif not 0 < value <= MOST_PORTS:
        payload.deny(BAD_NUMBER, value, f"{value} is not a port; allowed: 1 to {MOST_PORTS}", *steps)


def _check_rate(value: object, payload: Payload, *steps: str | int) -> None:
    if type(value) is not int:
        payload.wrong_type(value, "a whole number", *steps, hint="write digits only, without quotes")
    elif not 0 <= value <= MOST_RATE:
        payload.deny(
            BAD_NUMBER,
            value,
            f"{value} is out of range; allowed: 0 to {MOST_RATE}, a rate in bits per second, a burst in bits",
            *steps,
        )


def _each(check: Check) -> Check:
    """Return a check of lists whose members this check checks."""

    def check_list(value: object, payload: Payload, *steps: str | int) -> None:
        if type(value) is not list:
            payload.wrong_type(value, "a list", *steps)
            return
        for index, item in enumerate(value):
            check(item, payload, *steps, index)

    return check_list


def _check_port_mapping(value: object, payload: Payload, *steps: str | int) -> None:
    members = payload.members(value, _KNOWN_PORT_FIELDS, *steps)
    if members is None:
        return
    for field, item in members.items():
        _PORT_FIELDS[field](item, payload, *steps, field)
    for field in ("hostPort", "containerPort"):
        if field not in members:
            payload.deny(
                BAD_NUMBER,
                members,
                f"{field} is missing; a port mapping has hostPort and containerPort",
                *steps,
                hint=f"add {field}",
            )


def _check_bandwidth(value: object, payload: Payload, *steps: str | int) -> None:
    members = payload.members(value, _KNOWN_BANDWIDTH_FIELDS, *steps)
    if members is None:
        return
    before = len(payload.found.problems)
    for field, item in members.items():
        _check_rate(item, payload, *steps, field)
    if len(payload.found.problems) > before:
        return
    # The bandwidth plugin refuses one without the other (validateRateAndBurst).
    for direction in ("ingress", "egress"):
        rate, burst = f"{direction}Rate", f"{direction}Burst"
        if bool(members.get(rate)) != bool(members.get(burst)):
            given, lacking = (rate, burst) if members.get(rate) else (burst, rate)
            payload.deny(
                BAD_NUMBER,
                members[given],
                f"{given} without {lacking}; the two go together",
                *steps,
                given,
                hint=f"add {lacking}",
            )


_FIELDS: Final[dict[str, Check]] = {
    "name": _check_name,
    "namespace": _check_namespace,
    "ips": _each(_check_ip_or_prefix),
    "mac": _check_mac,
    "infiniband-guid": _check_guid,
    "interface": _check_interface,
    "interfaceRequest": _check_old_interface,
    "portMappings": _each(_check_port_mapping),
    "bandwidth": _check_bandwidth,
    "deviceID": _check_text,
    "cni-args": _check_arguments,
    "default-route": _each(_check_ip),
    "ipam-claim-reference": _check_name,
}
_PORT_FIELDS: Final[dict[str, Check]] = {
    "hostPort": _check_port,
    "containerPort": _check_port,
    "protocol": _check_protocol,
    "hostIP": _check_ip,
}
_KNOWN_FIELDS: Final = frozenset(_FIELDS)
_KNOWN_PORT_FIELDS: Final = frozenset(_PORT_FIELDS)
_KNOWN_BANDWIDTH_FIELDS: Final = frozenset({"ingressRate", "ingressBurst", "egressRate", "egressBurst"})
