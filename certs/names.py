"""What a certificate may be made for: DNS names, IP addresses, a Service of Kubernetes, the name of a client."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from noisegate.certs.pair import CertificateError
from noisegate.isolation.problems import shown

# RFC 1123, 2.1: letters, digits and hyphens, 1 to 63 of them, no hyphen at either end. RFC 6125, 6.4.3: `*` stands
# for one whole label, the leftmost. A name of at most 253 characters (RFC 1035, 2.3.4 less length bytes).
LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
DNS_NAME = re.compile(rf"(?:\*\.)?{LABEL}(?:\.{LABEL})*")
LONGEST_DNS_NAME = 253
SERVICE = re.compile(rf"({LABEL})\.({LABEL})(?:\.svc(?:\.cluster\.local)?)?")
LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280, appendix A.1


class Names(NamedTuple):
    """The names of a serving certificate, in the order given, none twice."""

    dns: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]


def read_names(texts: Iterable[str]) -> Names:
    """Read DNS names and IP addresses; upper case is lowered, since DNS does not tell the cases apart.

    Raises:
        CertificateError: One of them is neither, or there is none.
    """
    dns: dict[str, None] = {}
    addresses: dict[IPv4Address | IPv6Address, None] = {}
    for text in texts:
        name = read_name(text)
        if isinstance(name, str):
            dns[name] = None
        else:
            addresses[name] = None
    if not dns and not addresses:
        raise CertificateError("", "a serving certificate needs a name; allowed: DNS names and IP addresses")
    return Names(tuple(dns), tuple(addresses))


def read_name(text: str) -> str | IPv4Address | IPv6Address:
    """Read one DNS name or IP address.

    Raises:
        CertificateError: It is neither.
    """
    try:
        address = ip_address(text)
    except ValueError:
        name = text.lower()
    else:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise CertificateError("", f'name "{shown(text)}" has a zone; allowed: an IPv6 address without %zone')
        return address
    # A last label of digits alone makes clients take the name for an IPv4 address (WHATWG URL, "ends in a number").
    if len(name) > LONGEST_DNS_NAME or not DNS_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise CertificateError(
            "",
            f'name "{shown(text)}" is neither a DNS name nor an IP address; allowed: letters, digits and hyphens '
            "between dots, *. at the start, xn-- for other scripts, such as localhost or 127.0.0.1",
        )
    return name


def service_names(service: str) -> tuple[str, ...]:
    """Return the names under which a Service, given as `name.namespace`, is called inside the cluster.

    The API server asks for `name.namespace.svc` when it calls a webhook.

    Raises:
        CertificateError: It is not a Service's name and namespace.
    """
    match = SERVICE.fullmatch(service.lower())
    if match is None:
        raise CertificateError(
            "", f'service "{shown(service)}" is not NAME.NAMESPACE; allowed: such as noisegate.noisegate-system'
        )
    name, namespace = match.groups()
    return name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"


def client_name(text: str) -> str:
    """Read the name of a client: what stands in its certificate's CN and in the webhook's list of allowed clients.

    Raises:
        CertificateError: It is empty, too long, or holds spaces or what cannot be printed.
    """
    if not 0 < len(text) <= LONGEST_COMMON_NAME or not text.isprintable() or any(c.isspace() for c in text):
        raise CertificateError(
            "",
            f'client name "{shown(text)}" is not allowed; allowed: 1 to {LONGEST_COMMON_NAME} printable characters '
            "without spaces, such as kube-apiserver",
        )
    return text
