"""What a user of the cluster sees: pods applied with kubectl are mutated, scheduled, limited; and what happens without an enforcer.

Everything of noisegate is what deploy/overlays/enforcer installs, its enforcer runs from our own image by its DaemonSet; only the
admission server is on the host's loopback.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from containerd.images import BUSYBOX
from measured import MBITS, MIBS, SECONDS, Row
from tiers import UnavailableError, absent
from vm import Cluster, classrate, enforcing, measure, site, tools
from vm.kubelet import FOLDER, NAME, STATIC_PODS
from vm.site import Site

from noisegate.isolation import keys

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
ENFORCED: Final = {keys.ENFORCES + "disk": "true", keys.ENFORCES + "network": "true"}
"""Labels of the machine: it has no RDT."""
GROUP: Final = "cluster"
MI: Final = 1 << 20
M: Final = 1_000_000
WITHIN: Final = 0.02
ATTEMPTS: Final = 8
"""An emulated machine that has no time for a sender or for a timer moves less than the limit, never more; for how long it had none
is measured beside, and counts."""
SHARP: Final = 0.005
"""Share by which a measurement may be unsure, else it is none."""
WATCHED: Final = 6.0
"""Seconds for which a load is watched."""


def disk(wbps: int, volume: str = "data") -> dict[str, str]:
    """Return what asks for a volume's bandwidth, in MiB/s."""
    return {keys.DISK: json.dumps({volume: {"limits": {"wbps": f"{wbps}Mi"}}})}


def network(ingress: int, egress: int) -> dict[str, str]:
    """Return what asks for bandwidth, in Mbit/s."""
    return {keys.NETWORK: json.dumps({"limits": {"ingress": f"{ingress}M", "egress": f"{egress}M"}})}


def container(name: str, *command: str, image: str = BUSYBOX) -> Json:
    """Return a container with the node's programs and a volume at /data."""
    programs = [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in FOLDERS]
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": command or ["sleep", "3600"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, *programs],
    }


FOLDERS: Final = {path.removeprefix("/"): there for path, there in tools.FOLDERS.items()}


def pod(name: str, annotations: dict[str, str], *containers: Json, namespace: str = "default", **volume: Any) -> Json:
    """Return a pod whose volume `data` is an emptyDir, or as given."""
    programs = [{"name": name, "hostPath": {"path": there}} for name, there in FOLDERS.items()]
    spec = {
        "containers": list(containers) or [container("main")],
        "volumes": [{"name": "data", **(volume or {"emptyDir": {}})}, *programs],
        "terminationGracePeriodSeconds": 0,
    }
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(name="here", scope="module")
def _here(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster with all of the overlay but an enforcer."""
    try:
        with site.installed(cluster, tmp_path_factory.mktemp("site")) as installed:
            yield installed
    except UnavailableError as error:
        absent("cluster", error)


@pytest.fixture(name="enforced", scope="module")
def _enforced(here: Site) -> Site:
    """The same with an enforcer that enforces."""
    here.set_validator(on=True)
    here.deploy()
    here.await_enforcing()
    return here


def unscheduled(here: Site, name: str) -> str:
    """Return why a pod is not scheduled; empty: it is."""
    conditions = here.cluster.pod(name)["status"].get("conditions", [])
    return next((one["message"] for one in conditions if one.get("reason") == "Unschedulable"), "")


def delete(here: Site, *names: str) -> None:
    """Delete pods; what comes of them is not waited for."""
    here.kubectl("delete", "pod", "--now", "--wait=false", *names)


def cgroup(value: Json) -> str:
    """Return the path of a pod's cgroup below /sys/fs/cgroup."""
    # A static pod's is named by what its image in the API server says of it.
    uid = value["metadata"].get("annotations", {}).get(keys.MIRROR, value["metadata"]["uid"]).replace("-", "_")
    return f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"


def limits(here: Site, value: Json) -> str:
    """Return what the kernel says of a pod's emptyDir; empty: it is not limited."""
    path = f"{measure.CGROUPS}{cgroup(value)}/io.max"
    lines = here.cluster.node.read(path).splitlines()
    return next((line.removeprefix(f"{here.disk} ") for line in lines if line.startswith(f"{here.disk} ")), "")


def line(wbps: int) -> str:
    """Return what io.max says of a limit in MiB/s; operations are of 4 KiB, the contract's default."""
    return f"rbps=max wbps={wbps * MI} riops=max wiops={wbps * MI // 4096}"


def test_without_an_enforcer(here: Site) -> None:
    """Who asks waits for a node that can hold it, and is told so; who does not ask runs.

    So it is where no enforcer is, and where its preflight finds that nobody would refuse a pod while it is away.
    """
    here.withdraw()
    here.set_validator(on=False)
    here.apply(pod("waiting", disk(4)), pod("plain", {}))
    here.cluster.await_phase("plain", seconds=site.SECONDS)
    here.until("it cannot be scheduled", lambda: "node affinity/selector" in unscheduled(here, "waiting"))
    assert here.labels() == {}

    here.deploy()
    lacking = "NRI validator: off (put deploy/node/10-noisegate.toml into"
    here.until("the enforcer has looked", lambda: lacking in here.condition().get("message", ""))
    assert (here.condition()["status"], here.condition()["reason"]) == ("False", "NotEnforcing")
    status = here.status()
    assert status is not None
    assert status.connected
    assert here.labels() == {}
    assert here.cluster.pod("waiting")["status"]["phase"] == "Pending"
    assert "nodeName" not in here.cluster.pod("waiting")["spec"]

    here.set_validator(on=True)
    here.cluster.await_phase("waiting", seconds=site.SECONDS)
    assert limits(here, here.cluster.pod("waiting")) == line(4)
    delete(here, "waiting", "plain")


def test_a_pod_that_asks(enforced: Site, table: list[Row]) -> None:
    """It is mutated by the webhook, scheduled by what was added, limited before its programs run, and held to it by the kernel's count."""
    node = enforced.cluster.node
    load = f"{' '.join(tools.fio('/data/load', 'write'))}; exec sleep 3600"
    containers = container("disk", "sh", "-c", load), container("network", "/usr/bin/iperf3", "--server")
    enforced.apply(pod("measured", disk(4) | network(20, 10), *containers))
    enforced.cluster.await_phase("measured", seconds=site.SECONDS)
    value = enforced.cluster.pod("measured")
    annotations = value["metadata"]["annotations"]
    assert value["spec"]["nodeSelector"] == ENFORCED
    assert json.loads(annotations[keys.REQUIRED_PLUGINS]) == [keys.NRI_PLUGIN]
    assert json.loads(annotations[keys.VOLUME_PATHS]) == {"data": {"disk": "/data", "network": "/data"}}

    assert limits(enforced, value) == line(4)
    measure.await_load(node, cgroup(value), enforced.disk, "wbytes")
    written = measure.io_rate(node, cgroup(value), enforced.disk, "wbytes")
    judge(table, Row(GROUP, "a pod writes to its emptyDir", MIBS, 4 * MI, written, 0.05))
    node.run("pkill", "-x", "fio")

    told = enforced.pod(value["metadata"]["uid"])
    assert told is not None
    assert told.network is not None
    host = told.network.interface
    found = re.search(r"Redirect to device (ng\w+)", node.sh(f"tc filter show dev {host} ingress"))
    assert found
    # For what looks at the classes; the enforcer runs from its image.
    enforcing.install(node)
    node.push([Path(classrate.__file__)], enforcing.PROGRAM)
    for direction, where, rate in (("receives", host, 20), ("sends", found[1], 10)):
        for _ in range(ATTEMPTS):
            passed, unsure, late = passes(enforced, value, where, direction)
            row = Row(GROUP, f"a pod {direction}", MBITS, rate * M, passed, WITHIN, WITHIN + late, f"late {late:.1%}")
            if unsure <= SHARP:
                assert passed <= rate * M * (1 + WITHIN)
                if passed >= rate * M * (1 - WITHIN):
                    break
        judge(table, row)
    delete(enforced, "measured")


def judge(table: list[Row], row: Row) -> None:
    """Put a row into the table, and see that it holds."""
    table.append(row)
    assert row.holds, row


def passes(here: Site, value: Json, where: str, direction: str) -> tuple[float, float, float]:
    """Load a pod's network, and look at the class on a device meanwhile.

    Returns:
        Bits per second by the class's own counter, by which share they may be wrong, and for which share of the time the machine
        had no processor.
    """
    node = here.cluster.node
    more = ["--reverse"] if direction == "sends" else []
    load = node.start("load", "iperf3", "--client", value["status"]["podIP"], "--time", "600", *more)
    look = ["chrt", "-f", "50", "python3", f"{enforcing.PROGRAM}/classrate.py", where, f"{WATCHED:g}"]
    told = json.loads(node.run("env", f"PYTHONPATH={enforcing.PROGRAM}", *look, timeout=120).out)
    load.stop()
    passed, unsure, late = (told[name] / told["seconds"] for name in ("bytes", "unsure", "late"))
    return 8 * passed, unsure, late


def test_limits_change_live_and_stay(enforced: Site, table: list[Row]) -> None:
    """What kubectl annotate says is in force within a second; it stays when the container, or the enforcer, is started again."""
    node = enforced.cluster.node
    enforced.apply(pod("changing", disk(4) | network(20, 10)))
    enforced.cluster.await_phase("changing", seconds=site.SECONDS)
    value = enforced.cluster.pod("changing")
    uid = value["metadata"]["uid"]
    # The best of a few: the machine and its control plane share the processor with whoever else is at work.
    seconds = min(arrives(enforced, value, 5 + number) for number in range(ATTEMPTS))
    table.append(Row(GROUP, "from the API server's answer to io.max, at most", SECONDS, 1, seconds))
    assert seconds <= 1
    enforced.kubectl("annotate", "--overwrite", "pod", "changing", told(disk(16)), told(network(40, 30)))
    enforced.until("another bandwidth", lambda: shaped(enforced, uid) == (40 * M, 30 * M))
    assert limits(enforced, value) == line(16)

    (status,) = value["status"]["containerStatuses"]
    scope = f"cri-containerd-{status['containerID'].removeprefix('containerd://')}.scope"
    node.sh(f"kill -9 $(cat {measure.CGROUPS}{cgroup(value)}/{scope}/cgroup.procs)")
    enforced.cluster.await_restarted("changing", seconds=site.SECONDS)
    assert limits(enforced, value) == line(16)

    before = enforced.enforcer()["metadata"]["name"]
    enforced.kubectl("delete", "pod", "--namespace", site.NAMESPACE, before)
    assert limits(enforced, value) == line(16)
    enforced.until("another enforcer", lambda: [one["metadata"]["name"] for one in enforced.enforcers()] != [before])
    enforced.await_enforcing()
    assert (limits(enforced, value), shaped(enforced, uid)) == (line(16), (40 * M, 30 * M))

    killed = enforced.pid()
    node.run("kill", "-9", str(killed))
    assert limits(enforced, value) == line(16)
    enforced.until("the enforcer is back", lambda: enforced.pid() not in {0, killed})
    enforced.await_enforcing()
    assert (limits(enforced, value), shaped(enforced, uid)) == (line(16), (40 * M, 30 * M))
    arrives(enforced, value, 4)
    delete(enforced, "changing")


def told(annotations: dict[str, str]) -> str:
    """Return an annotation as kubectl annotate takes it."""
    ((key, text),) = annotations.items()
    return f"{key}={text}"


def shaped(here: Site, uid: str) -> tuple[int | None, int | None]:
    """Return what the kernel has for a pod's network: ingress, egress, in bits per second."""
    pod = here.pod(uid)
    if pod is None or pod.network is None:
        return None, None
    return pod.network.observed["ingress"], pod.network.observed["egress"]


def arrives(here: Site, value: Json, wbps: int) -> float:
    """Change a pod's disk limit with kubectl; return for how long at most the API server had it before io.max did."""
    name, wanted = value["metadata"]["name"], disk(wbps)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(here.kubectl, "annotate", "--overwrite", "pod", name, told(wanted))
        last = time.monotonic()
        is_known = False
        end = last + 60
        while limits(here, value) != line(wbps):
            assert time.monotonic() < end, f"{wbps} MiB/s never came\n{here.told()}"
            now = time.monotonic()
            is_known = is_known or wanted.items() <= here.cluster.pod(name)["metadata"]["annotations"].items()
            last = last if is_known else now
        arrived = time.monotonic()
        asked.result()
    return arrived - last


def test_while_the_enforcer_is_dead(enforced: Site) -> None:
    """Pods that ask wait, and say for what; plain pods start. Those that waited start when it is back, limited."""
    node = enforced.cluster.node
    # It takes the host's lock in the moment of the death: what the kubelet starts again cannot work.
    keeper = node.start("keeper", "flock", "--no-fork", f"{site.STATE}/lock", "sleep", "600")
    node.run("kill", "-9", str(enforced.pid()))
    enforced.apply(pod("stopped", disk(4)), pod("bystander", {}))
    enforced.cluster.await_phase("bystander", seconds=site.SECONDS)
    missing = f'required plugin "{keys.NRI_PLUGIN}" not present'

    def waits() -> bool:
        statuses = enforced.cluster.pod("stopped")["status"].get("containerStatuses", [])
        waiting = [one["state"].get("waiting", {}) for one in statuses]
        return [one.get("reason") for one in waiting] == ["CreateContainerError"] and missing in waiting[0]["message"]

    enforced.until("it waits for the enforcer", waits)
    assert missing in enforced.kubectl("events", "--for", "pod/stopped")
    assert enforced.labels() == ENFORCED
    keeper.stop()
    # The kubelet waits longer and longer before it starts the same pod's container again.
    enforced.kubectl("delete", "pod", "--namespace", site.NAMESPACE, "--all", "--now")
    enforced.await_enforcing()
    enforced.cluster.await_phase("stopped", seconds=site.SECONDS)
    assert limits(enforced, enforced.cluster.pod("stopped")) == line(4)
    delete(enforced, "stopped", "bystander")


def test_after_a_reboot(enforced: Site) -> None:
    """Everything comes back by itself, limited."""
    enforced.apply(pod("staying", disk(4) | network(20, 10)))
    enforced.cluster.await_phase("staying", seconds=site.SECONDS)
    value = enforced.cluster.pod("staying")
    assert limits(enforced, value) == line(4)
    enforced.cluster.node.reboot()
    enforced.cluster.await_restarted("staying", seconds=site.SECONDS)
    assert limits(enforced, value) == line(4)
    assert shaped(enforced, value["metadata"]["uid"]) == (20 * M, 10 * M)
    enforced.await_enforcing()
    assert enforced.labels() == ENFORCED
    delete(enforced, "staying")


def claim(name: str, path: str) -> list[Json]:
    """Return a volume of the administrator's that is a folder of the node, and a claim that has it."""
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    source = {"hostPath": {"path": path, "type": "Directory"}, "capacity": {"storage": "1Gi"}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {**spec, **source}}
    wanted = {**spec, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": "default"}
    return [
        volume,
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted},
    ]


def test_what_cannot_be_held_is_said(enforced: Site) -> None:
    """A pod whose volumes have no disk waits with the reason, and an Event says it: the value, why, and what to do."""
    node = enforced.cluster.node
    node.sh("mkdir -p /run/memory /srv/fuse; truncate -s 16M /var/lib/fuse.disk; mkfs.ext4 -q -F /var/lib/fuse.disk")
    node.sh("fuse2fs /var/lib/fuse.disk /srv/fuse")
    names = {"on-memory": ("/run/memory", "tmpfs"), "on-fuse": ("/srv/fuse", "fuse")}
    for name, (path, _) in names.items():
        asking = pod(name, disk(4), persistentVolumeClaim={"claimName": name})
        enforced.apply(*claim(name, path), asking)
    for name, (path, kind) in names.items():
        said = rf"{path} is on {kind}\S* and cannot be limited: .+ \(.+\)"

        def waits(name: str = name, said: str = said) -> bool:
            statuses = enforced.cluster.pod(name)["status"].get("containerStatuses", [])
            waiting = [one["state"].get("waiting", {}) for one in statuses]
            return any(
                one.get("reason") == "CreateContainerError" and re.search(said, one["message"]) for one in waiting
            )

        enforced.until(f"{name} waits", waits)
        events = enforced.kubectl("events", "--for", f"pod/{name}", "--types", "Warning")
        assert re.search(rf"VolumeNotThrottled +Pod/{name} +{said}", events), events
    delete(enforced, *names)
    enforced.kubectl("delete", "persistentvolumeclaim,persistentvolume", *names)
    node.run("umount", "/srv/fuse")


def test_what_is_malformed_is_left_out_and_said(enforced: Site) -> None:
    """In a namespace that only warns a pod comes to the node as it is: what can be meant is held, of the rest an Event tells."""
    labels = {"noisegate.io/mode": "warn"}
    enforced.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lenient", "labels": labels}})
    malformed = {keys.NETWORK: '{"limits": {"ingress": "40Mbps"}}'}
    warned = enforced.apply(pod("crooked", disk(4) | malformed, namespace="lenient"))
    assert "Warning: " in warned
    assert "40Mbps" in warned
    enforced.cluster.await_phase("crooked", namespace="lenient", seconds=site.SECONDS)
    value = enforced.cluster.pod("crooked", "lenient")
    assert limits(enforced, value) == line(4)
    assert shaped(enforced, value["metadata"]["uid"]) == (None, None)
    events = enforced.kubectl("events", "--namespace", "lenient", "--for", "pod/crooked", "--types", "Warning")
    assert re.search(
        r"RequestMalformed +Pod/crooked +.*40Mbps.*; this part is left out on the node, the rest is held", events
    )
    enforced.kubectl("delete", "namespace", "lenient")


def test_a_static_pod_is_held_to_its_file(enforced: Site) -> None:
    """The kubelet runs it without asking anybody; the enforcer knows it by its image in the API server."""
    node = enforced.cluster.node
    node.write(f"{FOLDER}/static.yaml", json.dumps(pod("static", disk(4))))
    node.run("mv", f"{FOLDER}/static.yaml", STATIC_PODS)
    name = f"static-{NAME}"
    enforced.cluster.await_phase(name, seconds=site.SECONDS)
    value = enforced.cluster.pod(name)
    assert limits(enforced, value) == line(4)
    node.sh(f"rm {STATIC_PODS}/static.yaml")
    enforced.cluster.await_phase(name, "", seconds=site.SECONDS)


def test_the_node_says_what_it_holds(enforced: Site) -> None:
    """Labels and condition as documented, as long as the enforcer works; what it shows on the node says the same."""
    assert enforced.labels() == ENFORCED
    condition = enforced.condition()
    assert (condition["status"], condition["reason"]) == ("True", "PartlyEnforcing")
    assert condition["message"].startswith("enforced: disk, network; missing: rdt: ")
    command = ("exec", "--namespace", site.NAMESPACE, "daemonset/noisegate-node", "--", "python3", "-m", "noisegate")
    shown = json.loads(enforced.kubectl(*command, "node", "status", "-o", "json"))
    assert (shown["node"], shown["enforces"], shown["connected"]) == (NAME, ["disk", "network"], True)
    assert [check["name"] for check in shown["checks"] if not check["passed"]] == ["owner of RDT"]
    enforced.withdraw()
    assert enforced.labels() == {}
    assert (enforced.condition()["status"], enforced.condition()["reason"]) == ("False", "Stopped")
    enforced.deploy()
    enforced.await_enforcing()


def test_the_node_is_cleaned(enforced: Site) -> None:
    """As the guide undoes it: a pod in the enforcer's place takes back what was made, also of pods that run; then it is held anew."""
    node = enforced.cluster.node
    enforced.apply(pod("cleaned", disk(4) | network(20, 10)))
    enforced.cluster.await_phase("cleaned", seconds=site.SECONDS)
    value = enforced.cluster.pod("cleaned")
    uid = value["metadata"]["uid"]
    assert (limits(enforced, value), shaped(enforced, uid)) == (line(4), (20 * M, 10 * M))
    enforced.clean()
    assert (limits(enforced, value), enforced.labels()) == ("", {})
    assert not re.search(r"6e67:|\bng[0-9a-f]{12}\b", node.sh("tc qdisc; ip -o link"))
    assert node.run("ls", f"{site.STATE}/pods", check=False).out == ""
    said = enforced.kubectl("logs", "--namespace", site.NAMESPACE, "daemonset/noisegate-node", "--container", "cleanup")
    assert f"default/cleaned ({uid}): its limits are undone" in said
    enforced.deploy()
    enforced.await_enforcing()
    enforced.until("it is held again", lambda: shaped(enforced, uid) == (20 * M, 10 * M))
    assert limits(enforced, value) == line(4)
    delete(enforced, "cleaned")
