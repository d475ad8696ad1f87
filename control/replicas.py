"""Which certificate each replica serves: the endpoints of the Service, and a TLS handshake with each."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from cryptography import x509

from noisegate.control.api import Api

SECONDS: Final = 3.0
"""For a connection and its handshake."""


class Address(NamedTuple):
    """Where a replica listens."""

    host: str
    port: int


async def served(api: Api, namespace: str, service: str) -> list[x509.Certificate | None]:
    """Return what each replica of a Service serves, ready or not; None: it does not answer.

    Raises:
        ApiError: The API server does not tell the endpoints.
    """
    selector = f"labelSelector=kubernetes.io%2Fservice-name%3D{service}"
    listed = await api.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}")
    name = f"{service}.{namespace}.svc"
    found = list(addresses((listed or {}).get("items") or []))
    return await asyncio.gather(*(_served(address, name) for address in found))


def addresses(slices: list[dict[str, Any]]) -> Iterator[Address]:
    """Yield the addresses of EndpointSlices (discovery.k8s.io/v1), each once."""
    seen = set()
    for one in slices:
        port = next((port["port"] for port in one.get("ports") or [] if port.get("port")), 0)
        for endpoint in one.get("endpoints") or []:
            # All addresses of an endpoint lead to the same pod.
            address = Address(endpoint["addresses"][0], port)
            if port and address not in seen:
                seen.add(address)
                yield address


async def _served(address: Address, name: str) -> x509.Certificate | None:
    # What is served is looked at, not trusted.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    writer = None
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        given = secured.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(given) if given else None
    except (OSError, ValueError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.close()
            # A server that wants a client certificate ends the connection by itself.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await writer.wait_closed()
