"""The controller: looks at the cluster every few seconds while it leads, and puts right what is not as it should be.

It looks rather than watches: a handful of GETs from one leader cost an API server nothing, need fewer rights, and cannot
miss anything.
"""

import asyncio
import contextlib
import socket
import time
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import uuid4

from noisegate.certs.authority import AUTHORITY_LIFE, LEAF_LIFE
from noisegate.certs.names import read_names, service_names
from noisegate.certs.succession import Settings
from noisegate.cluster.connection import ApiError
from noisegate.control.api import Api
from noisegate.control.certificates import Certificates
from noisegate.control.configurations import Configurations
from noisegate.control.events import Events
from noisegate.control.lease import Lease
from noisegate.control.metrics import Metrics
from noisegate.control.rulebook import Rulebook
from noisegate.service.binding import bind
from noisegate.service.health import Health
from noisegate.service.log import Log
from noisegate.service.stop import Stop

ROLE: Final = "noisegate-controller"
"""Role and ClusterRole of deploy/ that have the rights."""
LEASE: Final = "noisegate-controller"


class Config(NamedTuple):
    """What a controller is told. Times are in seconds.

    Attributes:
        kubeconfig: File; empty: as the ServiceAccount of the pod that this is.
        namespace: Of all that it keeps.
        service: Of the admission server.
        config_map: Where mutations.yaml is.
        certificates: Whether Secrets and `caBundle` are kept; False: somebody else does, such as cert-manager.
        look_every: Between two looks.
        settle: After which every API server has learnt of a `caBundle`.
        narrow_after: For which what the rules before waited for is still sent: longer than a kubelet takes to bring a
            ConfigMap, and than the rules before satisfy validation (300).
        lease: For so long a leader is waited for that does not renew its Lease.
        leaf_life: Of a serving certificate.
        authority_life: Of an authority.
        health_address: Of /healthz, /readyz and /metrics.
        health_port: Of the same; 0: any free one.
    """

    kubeconfig: str = ""
    namespace: str = "noisegate-system"
    service: str = "noisegate-webhook"
    config_map: str = "noisegate-config"
    certificates: bool = True
    look_every: float = 2.0
    settle: float = 30.0
    narrow_after: float = 600.0
    lease: float = 15.0
    leaf_life: timedelta = LEAF_LIFE
    authority_life: timedelta = AUTHORITY_LIFE
    health_address: str = "0.0.0.0"
    health_port: int = 8081


async def serve(config: Config, log: Log, stop: Stop | None = None) -> int:
    """Work until a signal; return the exit status.

    Raises:
        ApiError: There is no configuration for the API server.
        CertificateError: A name or a life is not allowed.
        OSError: The health port cannot be listened on.
    """
    if stop is None:
        stop = Stop()
        stop.on_signals()
    names = read_names(list(service_names(f"{config.service}.{config.namespace}")))
    api = await Api.opened(config.kubeconfig)
    try:
        return await _Controller(config, api, Settings(names, config.leaf_life, config.authority_life), log).run(stop)
    finally:
        await api.close()


class _Controller:
    def __init__(self, config: Config, api: Api, settings: Settings, log: Log) -> None:
        self.config: Final = config
        self.log: Final = log
        self.metrics: Final = Metrics()
        self.identity: Final = f"{socket.gethostname()}_{uuid4().hex[:8]}"
        clock = time.monotonic
        events = self.events = Events(api, config.namespace, self.identity, log, clock)
        self.configurations: Final = Configurations(api, self.metrics)
        self.lease: Final = Lease(api, config.namespace, LEASE, self.identity, config.lease, clock)
        certificates = Certificates(
            api, config.namespace, config.service, settings, config.settle, events, self.metrics, clock
        )
        rulebook = Rulebook(api, config.namespace, config.config_map, config.narrow_after, events, self.metrics, clock)
        self.keepers: Final = (certificates, rulebook) if config.certificates else (rulebook,)
        self.leading = False
        self.reasons: list[str] = ["starting"]
        self.notes: list[str] = []

    async def run(self, stop: Stop) -> int:
        sockets = bind(self.config.health_address, self.config.health_port)
        health = Health(lambda: self.reasons, lambda: self.notes, self.metrics.text)
        try:
            await health.open(sockets)
            self.log.info("working", health_port=sockets[0].getsockname()[1], identity=self.identity)
            while not stop.asked.is_set():
                await self._turn()
                await self._rest(stop)
            with contextlib.suppress(ApiError):
                await self.lease.release()
        finally:
            await health.close()
            for listener in sockets:
                listener.close()
        self.log.info("ended", status=0)
        return 0

    async def _rest(self, stop: Stop) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.look_every):
                await stop.asked.wait()

    async def _turn(self) -> None:
        """Look once: whether we lead, and if so what is to be done. What fails is told, and tried again next time."""
        # Whoever holds the Lease must be done, or give up, before another may take it.
        limit = self.config.lease * 2 / 3
        leads = False
        try:
            async with asyncio.timeout(limit):
                leads = await self.lease.hold()
                self._lead(leads)
                if leads:
                    await self._look()
            self.reasons = []
        except ApiError as error:
            if error.status != 409:  # then somebody else wrote first: look again
                self._fail(_plain(error), leads=leads)
        except TimeoutError:
            slow = "the API server is slow, or replicas do not answer" if leads else "the API server is slow"
            self._fail(f"a look took longer than the {limit:g} s that a leader has: {slow}", leads=leads)

    async def _look(self) -> None:
        await self.events.send()
        notes = await self.configurations.read()
        notes += self.configurations.missing()
        failures = []
        # Neither waits for the other to be possible.
        for keeper in self.keepers:
            try:
                notes += await keeper.look(self.configurations)
            except ApiError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        for note in notes:
            if note not in self.notes:
                self.log.info("note", note=note)
        self.notes = notes
        self.metrics.looks.labels("done").inc()
        if not notes:
            self.metrics.success.set(time.time())

    def _lead(self, leading: bool) -> None:
        if leading != self.leading:
            self.log.info("leads" if leading else "follows", identity=self.identity)
            self.notes = []
        self.leading = leading
        self.metrics.leader.set(int(leading))

    def _fail(self, reason: str, *, leads: bool) -> None:
        if self.reasons != [reason]:
            self.log.warning("look-failed", reason=reason)
        self.reasons = [reason]
        if self.leading:
            self.metrics.looks.labels("failed").inc()
        # Whoever cannot renew the Lease must think that another has it.
        self._lead(leads)


def _plain(error: ApiError) -> str:
    told = str(error)
    return f"{told}; bind {ROLE} to the controller's ServiceAccount" if error.status == 403 else told
