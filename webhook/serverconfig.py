"""What the server is told: plain values, each with its unit, its default and the reason for it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """How the server listens, what it bears and how it ends. Times are in seconds."""

    binding_address: str = "0.0.0.0"
    """Address or host name of the TLS port. Default: all of IPv4 (`::` is IPv6 too), because the API server comes from
    outside the pod."""
    port: int = 8443
    """TLS port; 0: any free one. Default 8443, as in the original."""
    cert: str = ""
    """Path of the serving certificate and its intermediates, PEM. Empty: plain HTTP, for tests and for use behind a
    proxy that ends TLS; the API server calls no such webhook."""
    key: str = ""
    """Path of the certificate's private key, PEM."""
    client_ca: str = ""
    """Path of the authorities that sign client certificates, PEM. Empty: clients need no certificate."""
    client_names: tuple[str, ...] = ()
    """Names of which a client certificate must bear one (see `tls.stranger`). Empty: everybody `client_ca` signed."""
    health_address: str = "0.0.0.0"
    """Address of the plain HTTP port. Default: all of IPv4 (`::` is IPv6 too), because the kubelet and Prometheus come from
    outside the pod."""
    health_port: int = 8080
    """Port of /healthz, /readyz and /metrics; 0: any free one. Default 8080."""
    processes: int = 1
    """Processes that share the TLS port. Default 1: replicas before processes."""
    max_in_flight: int = 256
    """Calls that wait (for their body, or for a look-up) at the same moment, per process; further ones are refused with
    429 at once, fairly (see `share`). A call that can be answered without waiting is answered: to refuse it costs as
    much. Default 256: with about 0.1 ms of work each, none of them is late."""
    max_connections: int = 2048
    """Connections at the same moment, per process; further ones are closed at once, fairly. Default 2048: an API server
    keeps at most 25 idle ones to a webhook, so this is for what is not an API server."""
    max_body_bytes: int = 7 << 20
    """Largest body. Default 7 MiB: etcd takes 1.5 MiB and the API server 3 MiB of an object, an UPDATE carries it
    twice, and the review needs a little around it."""
    max_buffered_bytes: int = 64 << 20
    """Memory for bodies above 64 KiB that are still on their way, per process; further ones are refused with 429,
    fairly. Default 64 MiB."""
    handshake_seconds: float = 5.0
    """For a TLS handshake. Default 5: half of the API server's default time-out for a webhook."""
    header_seconds: float = 5.0
    """From a call's first byte to the end of its head. Default 5."""
    body_seconds: float = 10.0
    """From the head to the end of the body. Default 10: the API server's default time-out for a webhook."""
    idle_seconds: float = 120.0
    """For a connection between calls. Default 120: longer than the API server's own 90, so that it is the one to close
    and no call meets a closing connection."""
    answer_seconds: float = 10.0
    """For a client to take its answer. Default 10."""
    prefetch_seconds: float = 2.0
    """For the look-ups before a decision; what is not known by then is not known. Default 2: well within the API
    server's default of 10."""
    shutdown_delay: float = 5.0
    """From the end of readiness to the end of listening. Default 5: endpoints need that long to spread."""
    drain_seconds: float = 20.0
    """For calls in flight to end after that. Default 20: with the delay, less than the 30 after which a kubelet kills."""
    poll_seconds: float = 2.0
    """Between two looks at the contents of files. Default 2: mounted Secrets and ConfigMaps give no events."""
