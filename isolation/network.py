"""Network bandwidth of a pod: annotation `networkio.kubernetes.io/resources` (pod-api.md 2).

`{"requests": {"ingress": Q, "egress": Q}, "limits": {...}}` in bits per second, counted as frames on the wire; ingress
is what the pod receives.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

from noisegate.isolation import keys
from noisegate.isolation.bounds import (
    UNSET,
    Bound,
    Change,
    QosClass,
    Steps,
    amount,
    bound,
    changes,
    groups,
    qos_class,
    warn_unlimited,
)
from noisegate.isolation.payload import ASKS_NOTHING, Payload
from noisegate.isolation.pod import PodSpec
from noisegate.isolation.problems import Code, Findings, in_annotation
from noisegate.isolation.quantity import format as write
from noisegate.isolation.quantity import whole

HOST_NETWORK: Final = Code(
    "NG201",
    "network-host-network",
    "A pod with hostNetwork has no interface of its own: a limit would hold the whole node.",
    'hostNetwork: true\nnetworkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
    'hostNetwork: false\nnetworkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
TWO_SHAPERS: Final = Code(
    "NG202",
    "network-two-shapers",
    "The CNI bandwidth plugin and noisegate would both put their queueing discipline on the pod's interface.",
    'kubernetes.io/egress-bandwidth: 50M\nnetworkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
    'networkio.kubernetes.io/resources: \'{"limits": {"egress": "50M"}}\'',
)
CODES: Final = (HOST_NETWORK, TWO_SHAPERS)

UNIT: Final = "bits per second"

DIRECTIONS: Final = ("ingress", "egress")
_KNOWN: Final = frozenset(DIRECTIONS)
_PLACE: Final = partial(in_annotation, keys.NETWORK)


class NetworkRequest(NamedTuple):
    """What a pod asks for, in bits per second.

    Attributes:
        ingress: What the pod receives.
        egress: What the pod sends.
    """

    ingress: Bound = UNSET
    egress: Bound = UNSET

    @property
    def qos(self) -> QosClass:
        """Guaranteed where every request has a limit that equals it."""
        return qos_class(self)


def read(text: str, found: Findings) -> NetworkRequest | None:
    """Return what the annotation's value means, or None where it asks for nothing.

    What comes back beside problems is as much as could be understood: enough to look for further problems, never to
    be enforced.
    """
    payload = Payload(_PLACE, found)
    asked = payload.decode_object(text)
    if asked is None:
        return None
    before = len(found.problems)
    requests, limits = both = groups(payload, asked, _KNOWN)

    def value(value: object, steps: Steps, group: str, key: str) -> int | None:
        if type(value) is str:
            try:
                return whole(value)
            except ValueError:
                pass  # told below
        return amount(payload, value, UNIT, (*steps, group, key))

    request = NetworkRequest(bound(payload, both, "ingress", value), bound(payload, both, "egress", value))
    if len(found.problems) == before:
        if request == _NOTHING:
            payload.warn(ASKS_NOTHING, text, "it asks for nothing", hint="leave the annotation out")
            return None
        if not requests.keys() <= limits.keys():
            warn_unlimited(payload, [name for name in DIRECTIONS if name in requests and name not in limits])
    return request


_NOTHING: Final = NetworkRequest()


def fit(_: NetworkRequest, spec: PodSpec, annotations: Mapping[str, str], found: Findings) -> None:
    """Report where the request does not fit the pod: no network of its own, or another shaper on it."""
    if spec.host_network:
        told = "a pod with hostNetwork: true has no network interface of its own to limit"
        found.deny(HOST_NETWORK, in_annotation(keys.NETWORK), "", told, "leave the annotation or hostNetwork out")
    for key, direction in ((keys.CNI_INGRESS, "ingress"), (keys.CNI_EGRESS, "egress")):
        if key in annotations:
            told = f"{key} makes the CNI bandwidth plugin shape the interface that {keys.NETWORK} is about; one of the two can"
            found.deny(
                TWO_SHAPERS,
                in_annotation(key),
                annotations[key],
                told,
                f"leave it out and say limits.{direction} there",
            )


def changed(old: NetworkRequest | None, new: NetworkRequest | None) -> list[Change]:
    """Return what differs between two requests of a running pod and may not: everything but the value of a limit."""
    found: list[Change] = []
    for name, was, now in zip(DIRECTIONS, old or _NOTHING, new or _NOTHING, strict=True):
        for group, told in changes(was, now):
            value = now.request if group == "requests" else now.limit
            found.append(Change(_PLACE(group, name), "" if value is None else write(value), told))
    return found
