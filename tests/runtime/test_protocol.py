"""The NRI plugin at a real containerd: what it hears, what its answers do, and what happens when none comes."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from containerd import Containerd, CriError, Device, LinuxContainerResources, Mount, Nri, Pod, Start
from nrilab import Lab, forever, raises, running

from noisegate.enforcement.nri.events import Adjustment, Container, Sandbox, State, Validation
from noisegate.enforcement.refusal import Refusal

pytestmark = pytest.mark.runtime

ROOT = Path(__file__).parents[2]
REQUIRED = {"required-plugins.noderesource.dev": '["noisegate"]'}


@contextlib.asynccontextmanager
async def connected(containerd: Containerd) -> AsyncIterator[Lab]:
    """Run a plugin that is connected."""
    lab = Lab(containerd.socket)
    async with running(lab):
        await lab.until(lambda: lab.plugin.status.connected)
        yield lab


async def run_pod(containerd: Containerd, **annotations: str) -> Pod:
    """Run a pod while the plugin answers."""
    return await asyncio.to_thread(containerd.cri.run_pod, annotations=annotations)


async def test_what_it_hears(containerd: Containerd) -> None:
    """A pod's life, event by event, each with what the enforcer needs of it, over the calls of NRI 0.12."""
    cri, node = containerd.cri, containerd.node
    volume = node.folder / "volume"
    volume.mkdir()
    async with connected(containerd) as lab:
        pod = await run_pod(containerd, word="told")
        container = await asyncio.to_thread(
            cri.create,
            pod,
            name="main",
            mounts=[Mount(container_path="/data", host_path=str(volume))],
            devices=[Device(container_path="/dev/nothing", host_path="/dev/null", permissions="rw")],
        )
        await asyncio.to_thread(cri.start, container)
        await asyncio.to_thread(cri.update, container, LinuxContainerResources(cpuset_cpus="0"))
        await asyncio.to_thread(cri.stop, container)
        await asyncio.to_thread(cri.stop_pod, pod)
        await asyncio.to_thread(cri.remove_pod, pod)
        status = lab.plugin.status
    events = [event for event, _ in lab.handler.heard]
    assert events == ["synchronize", "run", "create", "validate", "update", "stop", "remove"]
    heard = dict(lab.handler.heard)

    (sandbox,) = heard["run"]
    assert isinstance(sandbox, Sandbox)
    assert (sandbox.id, sandbox.uid, sandbox.namespace) == (pod.id, pod.uid, "default")
    assert (sandbox.name, sandbox.cgroup_parent) == (pod.config.metadata.name, pod.cgroup)
    assert sandbox.annotations["word"] == "told"
    assert sandbox.netns.startswith(("/run/netns/", "/var/run/netns/"))
    assert sandbox.pid > 0
    # At its stop the pod's network is still there, and when it is removed it is gone.
    assert heard["stop"][0].netns == sandbox.netns
    assert heard["remove"][0].netns == ""
    assert (sandbox.stopped, heard["stop"][0].stopped, heard["remove"][0].stopped) == (False, False, True)

    created = heard["create"][1]
    assert isinstance(created, Container)
    assert (created.id, created.sandbox, created.name) == (container, pod.id, "main")
    assert created.pid == 0
    assert ("/data", str(volume)) in created.mounts
    assert [(one.path, one.kind, one.device) for one in created.devices if one.path == "/dev/nothing"] == [
        ("/dev/nothing", "c", (1, 3))
    ]
    assert created.cgroups_path == f"{pod.cgroup}/{container}"
    assert (heard["update"][1].state, heard["update"][1].id) == (State.RUNNING, container)
    assert heard["update"][1].pid > 0

    assert (status.runtime.name, status.runtime.version) == ("containerd", await asyncio.to_thread(cri.version))
    assert status.runtime.nri
    assert "deprecated StateChange" not in containerd.log.read_text()
    assert {outcome for _, outcome in lab.observed} == {"ok"}


async def test_a_pod_in_the_host_s_network(containerd: Containerd) -> None:
    """Its other namespaces are told: that there is none of the network is known, and not only untold."""
    async with connected(containerd) as lab:
        for host_network in (True, False):
            pod = await asyncio.to_thread(containerd.cri.run_pod, host_network=host_network)
            await asyncio.to_thread(containerd.cri.stop_pod, pod)
            await asyncio.to_thread(containerd.cri.remove_pod, pod)
    heard = [values[0] for event, values in lab.handler.heard if event == "run"]
    assert [(one.namespaces_told, one.host_network) for one in heard] == [(True, True), (True, False)]


async def test_an_adjustment_comes_back_to_be_validated(containerd: Containerd) -> None:
    """What we set is what the runtime shows at VALIDATE, as ours, also when it takes several frames to say it."""
    async with connected(containerd) as lab:
        sent = Adjustment(None, "noisegate-gold", {"io.max": "8:0 rbps=1048576\n" * 1000})
        lab.handler.adjustment = sent
        pod = await run_pod(containerd)
        await asyncio.to_thread(containerd.cri.create, pod)
        (validation,) = dict(lab.handler.heard)["validate"]
        assert isinstance(validation, Validation)
        assert validation.adjustment == sent
        assert (validation.owners.clos_id, validation.owners.schemata) == ("10-noisegate", "")
        assert validation.owners.unified == {"io.max": "10-noisegate"}
        assert "10-noisegate" in validation.plugins
        assert lab.plugin.status.connected


@pytest.mark.skipif(Path("/sys/fs/resctrl/schemata").exists(), reason="here a group can be had")
async def test_a_group_without_rdt(containerd: Containerd) -> None:
    """Where the kernel has no RDT, a container that is to start in a group does not start; without a group it does."""
    cri = containerd.cri
    async with connected(containerd) as lab:
        pod = await run_pod(containerd)
        plain = await asyncio.to_thread(cri.create, pod)
        lab.handler.adjustment = Adjustment(clos_id="noisegate-gold")
        asking = await asyncio.to_thread(cri.create, pod)
        await asyncio.to_thread(cri.start, plain)
        with pytest.raises(CriError, match="RDT is not enabled"):
            await asyncio.to_thread(cri.start, asking)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("create", "noisegate: /dev/sda1 is a partition (name the disk)"),
        ("validate", 'validator "10-noisegate" rejected container adjustment, reason: /dev/sda1 is a partition (name'),
        ("run", "noisegate: /dev/sda1 is a partition (name the disk)"),
    ],
)
async def test_a_refusal_reaches_the_caller(containerd: Containerd, event: str, told: str) -> None:
    """Whoever asked the runtime reads our words; the plugin stays, and the next one is served."""
    async with connected(containerd) as lab:
        pod = await run_pod(containerd)
        lab.handler.does[event] = raises(Refusal("IsPartition", "/dev/sda1 is a partition", "name the disk"))
        with pytest.raises(CriError) as refused:
            await (run_pod(containerd) if event == "run" else asyncio.to_thread(containerd.cri.create, pod))
        assert told in refused.value.text
        lab.handler.does.clear()
        assert await asyncio.to_thread(containerd.cri.run, await run_pod(containerd))
        assert lab.plugin.status.connections == 1


@pytest.mark.parametrize("event", ["create", "validate"])
async def test_a_fault_reaches_the_caller(containerd: Containerd, event: str) -> None:
    """An exception of a handler refuses the container with an explicit error, and the plugin stays."""
    async with connected(containerd) as lab:
        pod = await run_pod(containerd)
        lab.handler.does[event] = raises(ValueError("oops"))
        with pytest.raises(CriError, match=r"noisegate: \w+ failed: ValueError: oops"):
            await asyncio.to_thread(containerd.cri.create, pod)
        lab.handler.does.clear()
        assert await asyncio.to_thread(containerd.cri.create, pod)
        assert lab.plugin.status.connections == 1


@pytest.mark.parametrize("event", ["create", "validate"])
async def test_a_slow_handler(start: Start, event: str) -> None:
    """Before the runtime's patience ends we answer with an error: the container is refused, and the plugin stays."""
    containerd = start(Nri(request=1.0))
    async with connected(containerd) as lab:
        pod = await run_pod(containerd)
        lab.handler.does[event] = forever
        with pytest.raises(CriError, match=r"noisegate: not done within 0\.7"):
            await asyncio.to_thread(containerd.cri.create, pod)
        lab.handler.does.clear()
        assert await asyncio.to_thread(containerd.cri.create, pod)
        assert lab.plugin.status.connections == 1


async def test_taking_over_may_take_long(start: Start) -> None:
    """A handler that needs longer than the runtime's patience for Synchronize is registered all the same."""
    containerd = start(Nri(request=0.5, validator=True))
    lab = Lab(containerd.socket)
    lab.handler.does["synchronize"] = forever
    async with running(lab):
        await lab.until(lambda: lab.plugin.status.connected)
        pod = await asyncio.to_thread(containerd.cri.run_pod, annotations=REQUIRED)
        assert await asyncio.to_thread(containerd.cri.create, pod)


PLUGIN = """
import asyncio, os, signal, sys, time
from pathlib import Path
from nrilab import Lab

class Dies(Lab):
    def __init__(self, path, how, event):
        super().__init__(path)
        if how != "lives":
            self.handler.does[event] = self.dies if how == "dies" else self.stalls
    async def dies(self):
        os.kill(os.getpid(), signal.SIGKILL)
    async def stalls(self):
        time.sleep(60)

async def main():
    lab = Dies(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    run = asyncio.ensure_future(lab.plugin.run(lab.stop))
    await lab.until(lambda: lab.plugin.status.connected)
    print("connected", flush=True)
    await run

asyncio.run(main())
"""


@contextlib.contextmanager
def plugin_process(containerd: Containerd, how: str, event: str = "") -> Iterator[None]:
    """Run the plugin in a process that may die in an event, or stall there with its loop blocked."""
    with subprocess.Popen(
        [sys.executable, "-c", PLUGIN, str(containerd.socket), how, event],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("event", ["create", "validate"])
@pytest.mark.parametrize("how", ["dies", "stalls"])
def test_a_plugin_that_ends_in_a_call(start: Start, how: str, event: str) -> None:
    """A pod that requires us gets no container when we die in its very call, or stall there; nor the next one."""
    containerd = start(Nri(request=0.5, validator=True))
    cri = containerd.cri
    asking, plain = cri.run_pod(annotations=REQUIRED), cri.run_pod()
    with plugin_process(containerd, how, event):
        with pytest.raises(CriError, match="validator plugin 10-noisegate failed"):
            cri.create(asking)
        with pytest.raises(CriError, match='required plugin "noisegate" not present'):
            cri.create(asking)
        assert cri.run(plain)
    with plugin_process(containerd, "lives"):
        assert cri.run(asking)


def test_a_plugin_that_is_absent(start: Start) -> None:
    """A pod that requires us gets no container without us; another does, and with us both do."""
    containerd = start(Nri(validator=True))
    cri = containerd.cri
    asking, plain = cri.run_pod(annotations=REQUIRED), cri.run_pod()
    with pytest.raises(CriError, match='required plugin "noisegate" not present'):
        cri.create(asking)
    assert cri.run(plain)
    with plugin_process(containerd, "lives"):
        assert cri.run(asking)
        assert cri.run(plain)


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_containerd_comes_back(containerd: Containerd, how: str) -> None:
    """The plugin connects again by itself, and is told of the pods and containers that lived on."""
    async with connected(containerd) as lab:
        pod = await run_pod(containerd, word="told")
        container = await asyncio.to_thread(containerd.cri.run, pod)
        lab.handler.heard.clear()
        if how == "restart":
            await asyncio.to_thread(containerd.restart)
        else:
            await asyncio.to_thread(containerd.kill)
            await lab.until(lambda: not lab.plugin.status.connected)
            assert lab.plugin.status.error
            await asyncio.to_thread(containerd.start)
        await lab.until(lambda: lab.plugin.status.connections == 2 and lab.plugin.status.connected)
        await lab.until(lambda: lab.observed.count(("Synchronize", "ok")) == 2)
        [(event, (sandboxes, containers))] = lab.handler.heard
        assert event == "synchronize"
        assert [(one.id, one.annotations["word"], one.cgroup_parent) for one in sandboxes] == [
            (pod.id, "told", pod.cgroup)
        ]
        assert [(one.id, one.sandbox, one.state) for one in containers] == [(container, pod.id, State.RUNNING)]
        assert containers[0].pid > 0
        assert await asyncio.to_thread(containerd.cri.create, pod)


async def test_a_thousand_containers(containerd: Containerd) -> None:
    """More than one message holds are told in several, all are taken over, and the plugin is registered in time."""
    # A create costs containerd a look at every container of the pod.
    pods, each, padding = 50, 20, "x" * 5000
    assert pods * each * len(padding) > 4 << 20

    def create_all() -> dict[str, str]:
        cri, created = containerd.cri, dict[str, str]()
        for _ in range(pods):
            pod = cri.run_pod(host_network=True)
            created |= {cri.create(pod, envs={"PADDING": padding}): pod.id for _ in range(each)}
        return created

    created = await asyncio.to_thread(create_all)
    async with connected(containerd) as lab:
        assert (lab.plugin.status.sandboxes, lab.plugin.status.containers) == (50, 1000)
        await lab.until(lambda: ("Synchronize", "ok") in lab.observed)
        [(_, (sandboxes, containers))] = lab.handler.heard
        assert {one.id: one.sandbox for one in containers} == created
        assert {one.id for one in sandboxes} == set(created.values())


async def test_the_runtime_is_not_left_in_the_lurch(containerd: Containerd) -> None:
    """A stop answers the call under way: its container is made."""
    lab = Lab(containerd.socket)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()

    run = asyncio.ensure_future(lab.plugin.run(lab.stop))
    await lab.until(lambda: lab.plugin.status.connected)
    pod = await run_pod(containerd)
    lab.handler.does["validate"] = slow
    creating = asyncio.ensure_future(asyncio.to_thread(containerd.cri.create, pod))
    await begun.wait()
    lab.stop.ask()
    go.set()
    assert await creating
    await run
