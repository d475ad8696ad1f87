"""What the plugin serves: a call of the runtime in, a handler's work and the answer out."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.nri.events import Container, Handler, Sandbox
from noisegate.enforcement.nri.messages import (
    PLUGIN_SERVICE,
    SUBSCRIBED,
    read_container,
    read_sandbox,
    read_validation,
    write_adjustment,
)
from noisegate.enforcement.nri.ttrpc import Answer, Call, Code
from noisegate.enforcement.refusal import Refusal
from noisegate.service.log import Log

PATIENCE: Final = 0.75
"""Part of the runtime's time-out after which we answer: at the time-out itself it drops the plugin."""
REQUEST_SECONDS: Final = 2.0
"""The runtime's time-out where it tells none: NRI's default."""

Outcome = str
"""`ok`, `refused` (by a Refusal), `late` (the deadline passed) or `failed` (an exception)."""
Observe = Callable[[str, float, Outcome], None]
"""Is told of every finished call: the event as NRI names its RPC, seconds, outcome."""
Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task and keeps it."""


class Runtime(NamedTuple):
    """What the runtime says of itself.

    Attributes:
        name: Such as `containerd`.
        version: Such as `v2.4.2`.
        nri: Version of its NRI library; empty before 0.12.
    """

    name: str = ""
    version: str = ""
    nri: str = ""


NOBODY: Final = Runtime()


class _Work(NamedTuple):
    """A handler's work for one call; it returns the answer's message."""

    event: str
    about: dict[str, object]
    run: Callable[[], Coroutine[Any, Any, bytes]]


class Service:
    """Serves one connection.

    Args:
        handler: Does the work.
        log: Where refusals and faults are told.
        observe: Is told how long each call took.
        spawn: Starts what is not waited for.
        clock: Seconds that never go back.

    Attributes:
        runtime: Who it is; None before it has configured us.
        synchronized: The numbers of sandboxes and containers that were handed over; done when all have come.
    """

    def __init__(
        self, handler: Handler, log: Log, observe: Observe, spawn: Spawn, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handler: Final = handler
        self._log: Final = log
        self._observe: Final = observe
        self._spawn: Final = spawn
        self._clock: Final = clock
        self._seconds = REQUEST_SECONDS
        self._parts: list[pb.SynchronizeRequest] = []
        self._handing: asyncio.Task[None] | None = None
        self.runtime: Runtime | None = None
        self.synchronized: Final[asyncio.Future[tuple[int, int]]] = asyncio.get_running_loop().create_future()

    def hear(self, call: Call) -> Answer | Coroutine[Any, Any, Answer]:
        """Return the answer, or the work that will return it within 75 % of the runtime's time-out."""
        if call.service != PLUGIN_SERVICE:
            return Answer(call.stream, b"", Code.UNIMPLEMENTED, f"service {call.service} is not served here")
        try:
            heard = self._take(call)
        except DecodeError:
            told = f"noisegate: what {call.method} was called with is no message of NRI"
            return Answer(call.stream, b"", Code.INVALID_ARGUMENT, told)
        if isinstance(heard, bytes):
            return Answer(call.stream, heard)
        if heard is None:
            return Answer(call.stream, b"", Code.UNIMPLEMENTED, f"method {call.method} is not served here")
        patience = self._seconds if call.seconds is None else min(self._seconds, call.seconds)
        return self._answer(call.stream, heard, PATIENCE * patience)

    def close(self) -> None:
        """End what nobody waits for any more: the next connection brings everything anew."""
        if self._handing is not None:
            self._handing.cancel()

    def _take(self, call: Call) -> _Work | bytes | None:
        match call.method:
            case "Configure":
                return self._configure(pb.ConfigureRequest.FromString(call.payload))
            case "Synchronize":
                return self._synchronize(pb.SynchronizeRequest.FromString(call.payload))
            case "Shutdown":
                self._log.info("nri-runtime-ends")
                return b""
            case "CreateContainer":
                asked = pb.CreateContainerRequest.FromString(call.payload)
                sandbox, container = read_sandbox(asked.pod), read_container(asked.container)
                return _Work(call.method, _about(sandbox, container), partial(self._create, sandbox, container))
            case "ValidateContainerAdjustment":
                return self._validation(pb.ValidateContainerAdjustmentRequest.FromString(call.payload))
            case "UpdateContainer":
                update = pb.UpdateContainerRequest.FromString(call.payload)
                sandbox, container = read_sandbox(update.pod), read_container(update.container)
                work = partial(_empty, self._handler.update_container, sandbox, container)
                return _Work(call.method, _about(sandbox, container), work)
            case "RunPodSandbox":
                return self._of_sandbox(call.method, pb.RunPodSandboxRequest.FromString(call.payload).pod)
            case "StopPodSandbox":
                return self._of_sandbox(call.method, pb.StopPodSandboxRequest.FromString(call.payload).pod)
            case "RemovePodSandbox":
                return self._of_sandbox(call.method, pb.RemovePodSandboxRequest.FromString(call.payload).pod)
            case "StateChange":
                change = pb.StateChangeEvent.FromString(call.payload)
                event = _CHANGES.get(change.event)
                return b"" if event is None else self._of_sandbox(event, change.pod)
        return None

    def _configure(self, asked: pb.ConfigureRequest) -> bytes:
        self.runtime = Runtime(asked.runtime_name, asked.runtime_version, asked.nri_version)
        if asked.request_timeout > 0:
            self._seconds = asked.request_timeout / 1000
        return pb.ConfigureResponse(events=SUBSCRIBED).SerializeToString()

    def _synchronize(self, asked: pb.SynchronizeRequest) -> bytes:
        """Collect a part; after the last one the runtime is answered first: it registers nobody who is slow here."""
        self._parts.append(asked)
        if not asked.more:
            parts, self._parts = self._parts, []
            counts = sum(len(part.pods) for part in parts), sum(len(part.containers) for part in parts)
            if not self.synchronized.done():
                self.synchronized.set_result(counts)
            self._handing = asyncio.get_running_loop().create_task(self._hand_over(parts))
        return pb.SynchronizeResponse(more=asked.more).SerializeToString()

    async def _hand_over(self, parts: list[pb.SynchronizeRequest]) -> None:
        begun = self._clock()
        sandboxes: list[Sandbox] = []
        containers: list[Container] = []
        for part in parts:
            sandboxes += [read_sandbox(pod) for pod in part.pods]
            for container in part.containers:
                containers.append(read_container(container))
                if len(containers) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        parts.clear()
        outcome = "ok"
        try:
            await self._handler.synchronize(sandboxes, containers)
        except Refusal as refusal:
            outcome = "refused"
            self._log.warning("nri-refused", call="Synchronize", reason=refusal.reason, told=str(refusal))
        except Exception as error:  # noqa: BLE001  (whatever a handler raises must not end the plugin)
            outcome = "failed"
            self._log.fault("nri-failed", cause=error, call="Synchronize")
        self._observe("Synchronize", self._clock() - begun, outcome)

    def _of_sandbox(self, event: str, said: pb.PodSandbox) -> _Work:
        sandbox = read_sandbox(said)
        work = {
            "RunPodSandbox": self._handler.run_pod_sandbox,
            "StopPodSandbox": self._handler.stop_pod_sandbox,
            "RemovePodSandbox": self._handler.remove_pod_sandbox,
        }[event]
        return _Work(event, _about(sandbox), partial(_empty, work, sandbox))

    async def _create(self, sandbox: Sandbox, container: Container) -> bytes:
        adjustment = await self._handler.create_container(sandbox, container)
        return pb.CreateContainerResponse(adjust=write_adjustment(adjustment)).SerializeToString()

    def _validation(self, asked: pb.ValidateContainerAdjustmentRequest) -> _Work:
        validation = read_validation(asked)
        about = _about(validation.sandbox, validation.container)
        return _Work(_VALIDATE, about, partial(_empty, self._handler.validate, validation))

    async def _answer(self, stream: int, work: _Work, seconds: float) -> Answer:
        begun = self._clock()
        task = asyncio.get_running_loop().create_task(work.run())
        try:
            await asyncio.wait([task], timeout=seconds)
        finally:
            finished = task.done()
            task.cancel()
        if not finished:
            # The handler may need time to end, or refuse to: the runtime is answered now.
            self._spawn(self._abandoned(task, work))
            outcome, answer = "late", Answer(stream, b"", Code.UNAVAILABLE, f"noisegate: not done within {seconds:g} s")
            self._log.warning("nri-late", call=work.event, seconds=seconds, **work.about)
        else:
            outcome, answer = self._outcome(stream, task, work)
        self._observe(work.event, self._clock() - begun, outcome)
        return answer

    def _outcome(self, stream: int, task: asyncio.Task[bytes], work: _Work) -> tuple[Outcome, Answer]:
        try:
            return "ok", Answer(stream, task.result())
        except Refusal as refusal:
            self._log.warning(
                "nri-refused",
                call=work.event,
                reason=refusal.reason,
                told=refusal.told,
                mend=refusal.mend,
                **work.about,
            )
            if work.event == _VALIDATE:
                reject = pb.ValidateContainerAdjustmentResponse(reject=True, reason=str(refusal))
                return "refused", Answer(stream, reject.SerializeToString())
            return "refused", Answer(stream, b"", Code.FAILED_PRECONDITION, f"noisegate: {refusal}")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (a handler's fault is told, not spread)
            self._log.fault("nri-failed", cause=error, call=work.event, **work.about)
            told = f"noisegate: {work.event} failed: {type(error).__name__}: {error}"
            return "failed", Answer(stream, b"", Code.INTERNAL, told)

    async def _abandoned(self, task: asyncio.Task[bytes], work: _Work) -> None:
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.fault("nri-failed-late", cause=error, call=work.event, **work.about)


_VALIDATE: Final = "ValidateContainerAdjustment"
_AT_ONCE: Final = 50
"""Containers read before others get a turn: with 20 mounts each takes 70 microseconds."""

_CHANGES: Final[dict[int, str]] = {
    pb.RUN_POD_SANDBOX: "RunPodSandbox",
    pb.STOP_POD_SANDBOX: "StopPodSandbox",
    pb.REMOVE_POD_SANDBOX: "RemovePodSandbox",
}


async def _empty(work: Callable[..., Coroutine[Any, Any, None]], *values: object) -> bytes:
    """Work whose answer is an empty message, which is no byte."""
    await work(*values)
    return b""


def _about(sandbox: Sandbox, *containers: Container) -> dict[str, object]:
    about: dict[str, object] = {"pod": f"{sandbox.namespace}/{sandbox.name}", "uid": sandbox.uid, "sandbox": sandbox.id}
    for container in containers:
        about |= {"container": container.name, "container_id": container.id}
    return about
