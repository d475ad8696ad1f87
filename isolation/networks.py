"""The grammar of the networks annotations: which networks a pod is attached to (pod-api.md 4).

`k8s.v1.cni.cncf.io/networks` and `v1.multus-cni.io/default-network` are read by several programs that do not agree on
every text. What is accepted here means the same to network-resources-injector and to Multus:

* Comma list: `[namespace/]name[@interface]`, each unit as the stricter of the two takes it.
* JSON list of network selection elements; neither of the two checks all of it, and what they let pass fails in the CNI
  plugin when the pod starts.

The elements' fields: `NetworkSelectionElement` of network-attachment-definition-client and of multus-cni.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from noisegate.isolation import keys
from noisegate.isolation.elements import (
    BAD_ADDRESS,
    BAD_INTERFACE,
    BAD_NAME,
    BAD_NUMBER,
    INTERFACE,
    LABEL,
    LONGEST_INTERFACE,
    LONGEST_NAME,
    LONGEST_NAMESPACE,
    NAME,
    NAMESPACE,
    OLD_FIELD,
    check_element,
    mended,
    shorter,
)
from noisegate.isolation.payload import ASKS_NOTHING, UNREADABLE, Payload
from noisegate.isolation.problems import Code, Findings, in_annotation, shown

TWO_READINGS: Final = Code(
    "NG405",
    "networks-two-readings",
    "network-resources-injector reads null as no networks, Multus as a network of that name.",
    'k8s.v1.cni.cncf.io/networks: "null"',
    "(leave the annotation out)",
)
NOT_ONE: Final = Code(
    "NG406",
    "networks-default-not-one",
    "A pod has one default network; network-resources-injector ignores the annotation otherwise, and Multus fails.",
    "v1.multus-cni.io/default-network: kube-system/a,kube-system/b",
    "v1.multus-cni.io/default-network: kube-system/a",
)
TOO_MANY: Final = Code(
    "NG407",
    "networks-too-many",
    "A pod may name at most 256 attachments; a longer list is a mistake, or meant to keep its readers busy.",
    "k8s.v1.cni.cncf.io/networks: a,a,a  # and so on, 257 times",
    "k8s.v1.cni.cncf.io/networks: a,a,a",
)
CODES: Final = (BAD_NAME, BAD_INTERFACE, BAD_ADDRESS, BAD_NUMBER, TWO_READINGS, NOT_ONE, TOO_MANY, OLD_FIELD)

MOST_ATTACHMENTS: Final = 256
"""Keeps what a hostile annotation of some hundred kilobytes can cost small."""

_ELEMENT: Final = re.compile(rf"(?:({LABEL})/)?({LABEL})(?:@({LABEL}))?")
_BLANKS: Final = " \t\n\v\f\r"
# Multus takes a text for JSON when one of these is in it.
_JSON_SIGNS: Final = re.compile(r'[\[{"]')


class Selection(NamedTuple):
    """One attachment of a pod to a network.

    Attributes:
        key: The annotation that names it.
        position: Place in that annotation, from 0.
        namespace: Of the NetworkAttachmentDefinition; None: the one its readers fill in (the pod's own).
        name: Of the NetworkAttachmentDefinition.
        interface: Name of the interface in the pod; empty: Multus chooses one.
        mac: MAC address asked for; empty: none.
        guid: InfiniBand GUID asked for; empty: none.
        ips: IP addresses asked for, with or without a prefix length.
        device: Device asked for by its own name; empty: the one that is allocated.
    """

    key: str
    position: int
    namespace: str | None
    name: str
    interface: str = ""
    mac: str = ""
    guid: str = ""
    ips: tuple[str, ...] = ()
    device: str = ""

    @property
    def default(self) -> bool:
        """Whether this is the network that takes the place of the cluster's default."""
        return self.key == keys.DEFAULT_NETWORK

    @property
    def path(self) -> str:
        """Where the pod says it."""
        return in_annotation(self.key, self.position)


def read(key: str, text: str, found: Findings) -> tuple[Selection, ...]:
    """Return the attachments that an annotation names, or those of them that can be meant.

    Args:
        key: `keys.NETWORKS`, or `keys.DEFAULT_NETWORK`, which names exactly one.
        text: Its value.
        found: Problems and warnings.
    """
    if _JSON_SIGNS.search(text):
        payload = Payload(partial(in_annotation, key), found)
        elements = payload.decode(text)
        if type(elements) is not list:
            if elements is not UNREADABLE:
                hint = f"write [{text.strip(_BLANKS)}]" if type(elements) is dict else ""
                payload.wrong_type(
                    elements, "a list of objects, or text as [namespace/]name[@interface],...", hint=shown(hint)
                )
            return ()
        number = len(elements)
        if number > MOST_ATTACHMENTS:
            _report_too_many(key, text, number, found)
            return ()
        selections = [
            _read_element(key, index, check_element(element, index, payload)) for index, element in enumerate(elements)
        ]
    elif text:
        if text.strip(_BLANKS) == "null":
            found.deny(
                TWO_READINGS,
                in_annotation(key),
                text,
                "null is no network to some readers and a network named null to others",
                "leave the annotation out",
            )
            return ()
        parts = text.split(",")
        number = len(parts)
        if number > MOST_ATTACHMENTS:
            _report_too_many(key, text, number, found)
            return ()
        selections = [_read_part(key, index, part, found) for index, part in enumerate(parts)]
    else:
        number = 0
        selections = []
    if number != 1 and key == keys.DEFAULT_NETWORK:
        found.deny(
            NOT_ONE,
            in_annotation(key),
            text,
            f"{number} networks are named; a pod has exactly one default network",
            "" if number else "leave the annotation out",
        )
    elif number == 0:
        found.warn(
            ASKS_NOTHING, in_annotation(key), text, "the annotation names no network", "leave the annotation out"
        )
    return tuple([selection for selection in selections if selection is not None])


def _report_too_many(key: str, text: str, number: int, found: Findings) -> None:
    found.deny(TOO_MANY, in_annotation(key), text, f"{number} networks are named; allowed: at most {MOST_ATTACHMENTS}")


def write(selections: Sequence[Selection]) -> str:
    """Return the value of an annotation that names these attachments: a comma list where that can say it, else JSON."""
    parts = [_as_part(selection) for selection in selections]
    if parts and all(_fits_list(selection, part) for selection, part in zip(selections, parts, strict=True)):
        return ",".join(parts)
    return json.dumps([_as_element(selection) for selection in selections], separators=(",", ":"))


def _as_part(selection: Selection) -> str:
    namespace = f"{selection.namespace}/" if selection.namespace else ""
    interface = f"@{selection.interface}" if selection.interface else ""
    return f"{namespace}{selection.name}{interface}"


def _fits_list(selection: Selection, part: str) -> bool:
    return part != "null" and _ELEMENT.fullmatch(part) is not None and not any(selection[5:])


def _as_element(selection: Selection) -> dict[str, Any]:
    fields = {
        "name": selection.name,
        "namespace": selection.namespace,
        "interface": selection.interface,
        "mac": selection.mac,
        "infiniband-guid": selection.guid,
        "ips": list(selection.ips),
        "deviceID": selection.device,
    }
    return {name: value for name, value in fields.items() if value}


def _read_part(key: str, index: int, part: str, found: Findings) -> Selection | None:
    match = _ELEMENT.fullmatch(part.strip(_BLANKS))
    if match is None:
        _explain_part(part, in_annotation(key, index), found)
        return None
    namespace, name, interface = match.groups("")
    if len(namespace) > LONGEST_NAMESPACE or len(name) > LONGEST_NAME or len(interface) > LONGEST_INTERFACE:
        _explain_part(part, in_annotation(key, index), found)
        return None
    return Selection(key, index, namespace or None, name, interface)


def _explain_part(part: str, path: str, found: Findings) -> None:
    """Report what is wrong with an element of a comma list."""
    element = part.strip(_BLANKS)
    if not element:
        found.deny(
            BAD_NAME,
            path,
            part,
            "an element is empty; allowed: [namespace/]name[@interface]",
            "leave out the comma too many",
        )
        return
    for sign in "/@":
        if element.count(sign) > 1:
            found.deny(
                BAD_NAME,
                path,
                element,
                f'"{shown(element)}" has more than one "{sign}"; allowed: [namespace/]name[@interface]',
            )
            return
    rest, at, interface = element.partition("@")
    namespace, slash, name = rest.rpartition("/")
    if "/" in interface:
        found.deny(
            BAD_NAME,
            path,
            element,
            f'"{shown(element)}" has its "/" behind the "@"; allowed: [namespace/]name[@interface]',
        )
        return
    if slash:
        _check_unit("namespace", namespace, LONGEST_NAMESPACE, path, found)
    _check_unit("name", name, LONGEST_NAME, path, found)
    if at and not (NAMESPACE.fullmatch(interface) and len(interface) <= LONGEST_INTERFACE):
        told = f'interface "{shown(interface)}" is not 1 to {LONGEST_INTERFACE} lower-case letters, digits and hyphens'
        json_form = INTERFACE.fullmatch(interface) is not None
        found.deny(
            BAD_INTERFACE,
            path,
            interface,
            told,
            f'write [{{"name": "{shown(name)}", "interface": "{interface}"}}]' if json_form else shorter(interface),
        )


def _check_unit(what: str, unit: str, longest: int, path: str, found: Findings) -> None:
    if NAMESPACE.fullmatch(unit) and len(unit) <= longest:
        return
    told = f'{what} "{shown(unit)}" is not 1 to {longest} lower-case letters, digits and hyphens, with no hyphen at the ends'
    dotted = what == "name" and NAME.fullmatch(unit) is not None and len(unit) <= longest
    found.deny(
        BAD_NAME,
        path,
        unit,
        told if unit else f"the {what} is empty",
        f'write [{{"name": "{unit}"}}]' if dotted else mended(unit),
    )


def _read_element(key: str, index: int, fields: Mapping[str, Any] | None) -> Selection | None:
    if fields is None:
        return None
    get = fields.get
    guid, device = get("infiniband-guid", ""), get("deviceID", "")
    return Selection(
        key,
        index,
        get("namespace"),
        fields["name"],
        get("interface", ""),
        get("mac", ""),
        guid,
        tuple(get("ips", ())),
        device,
    )
