"""Disk limits on a real kernel: what a pod may read and write, by the counters of its own cgroup.

Loads are slow, a few MiB and dozens of operations in a second: the emulated machine must never be the bottleneck. Requests are
small beside what passes in the time that is watched, since the kernel lets pass whole ones.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import vm
from containerd import CriError, Mount
from measured import MIBS, SECONDS, Row
from vm import Node, enforcing, loads, tools
from vm.enforcing import Enforcer
from vm.loads import Load

pytestmark = pytest.mark.node

MIB = 1 << 20
BLOCK = "128k"
"""Of requests, where bytes are limited."""
RECONCILE = 1
"""Seconds from one look at what stands to the next."""
ON_SYSTEMD = pytest.mark.parametrize("node", [True], ids=["systemd"], indirect=True)
"""Where volumes lie has nothing to do with who makes cgroups: one driver is enough."""
NO_LIMIT = "999Mi"
DISKLESS = """
mkdir -p /mnt/fuse /mnt/nfs /mnt/memory /srv/whole/exported/folder
mount -t tmpfs tmpfs /mnt/memory
truncate --size=8M /run/image
mkfs.ext4 -q /run/image
fuse2fs /run/image /mnt/fuse
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,insecure,fsid=0 127.0.0.1:/srv/whole/exported
rpc.mountd --no-nfs-version 3 --no-udp
rpc.nfsd --no-nfs-version 3 1
mount -t nfs4 127.0.0.1:/ /mnt/nfs
"""


@pytest.fixture(scope="module")
def enforcer(node: Node) -> Iterator[Enforcer]:
    """An enforcer beside the runtime."""
    enforcing.install(node)
    started = Enforcer(node, {"reconcileSeconds": RECONCILE})
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def disks(machine: Node) -> Mapping[str, str]:
    """The device that each kind of disk is limited on, by mount point; on each is a file of 64 MiB to be read."""
    machine.sh(
        "\n".join(f"dd if=/dev/zero of={disk}/cold bs=1M count=64 oflag=direct status=none" for disk in vm.DISKS)
    )
    # A partition's limit is its disk's.
    parted = machine.sh("lsblk --noheadings --nodeps --output MAJ:MIN /dev/vdc").strip()
    return {disk: machine.device(disk) for disk in vm.DISKS} | {"/srv/partition": parted}


@pytest.fixture(scope="module")
def diskless(machine: Node) -> int:
    """File systems without a disk of their own below /mnt: FUSE, NFS, memory; the process that serves FUSE."""
    machine.sh(DISKLESS, timeout=120)
    return int(machine.sh("pgrep fuse2fs"))


@pytest.fixture
def driver(node: Node) -> str:
    """Who makes cgroups, for the table."""
    return "systemd" if node.systemd_cgroup else "cgroupfs"


@ON_SYSTEMD
@pytest.mark.parametrize(
    ("how", "limits", "block", "within"),
    [
        ("bytes, direct", {"rbps": 2 * MIB, "wbps": MIB}, BLOCK, 0.05),
        # 4 KiB each, so that no limit in bytes is reached.
        ("operations, direct", {"riops": 50, "wiops": 30}, "4k", 0.05),
        ("bytes, buffered", {"rbps": MIB, "wbps": 2 * MIB}, BLOCK, 0.1),
    ],
    ids=["bytes", "operations", "buffered"],
)
def test_kinds_of_disks(
    node: Node,
    enforcer: Enforcer,
    disks: Mapping[str, str],
    table: list[Row],
    how: str,
    limits: Mapping[str, int],
    block: str,
    within: float,
) -> None:
    """A limit holds on a disk, on a partition (on its disk), on a logical volume and on a device-mapper target."""
    direct = not how.endswith("buffered")
    names = {disk: disk.rpartition("/")[2] for disk in disks}
    asked = {"rbps": NO_LIMIT, "wbps": NO_LIMIT} | {key: str(value) for key, value in limits.items()}
    uid = str(uuid.uuid4())
    mounted = {f"/{name}": loads.csi(node, uid, f"pvc-of-{name}", disk) for disk, name in names.items()}
    paths = {name: {"load": f"/{name}"} for name in names.values()}
    pod = loads.run_pod(node, dict.fromkeys(paths, asked), paths, uid)
    order = "rand" if "operations" in how else ""
    jobs = []
    for name in paths:
        jobs.append(tools.fio(f"/{name}/cold", f"{order}read", block=block, direct=direct))
        jobs.append(tools.fio(f"/{name}/hot", f"{order}write", block=block, direct=direct))
    loads.run(node, pod, *jobs, volumes=mounted)

    counters = {"rbps": "rbytes", "wbps": "wbytes", "riops": "rios", "wiops": "wios"}
    every = [
        Load(f"{name}, {'read' if key.startswith('r') else 'write'}", pod, disks[disk], counters[key], limit, within)
        for disk, name in names.items()
        for key, limit in limits.items()
    ]
    loads.judge(table, lambda: loads.watch(node, f"kinds of disks: {how}", every))
    node.cri.remove_pod(pod)


@ON_SYSTEMD
def test_kinds_of_volumes(node: Node, enforcer: Enforcer, disks: Mapping[str, str], table: list[Row]) -> None:
    """However a volume comes into a container, what is written to it is held; so are volumes and containers that share."""
    root, raw = node.device("/"), "/dev/volumes/raw"
    uid = str(uuid.uuid4())
    volumes = {
        "/empty": loads.empty_dir(node, uid, "empty"),
        "/csi": loads.csi(node, uid, "pvc-0d2c", "/srv/whole"),
        "/sub": loads.sub_path(node, uid, "sub", "/srv/logical/some/folder"),
    }
    paths = {name: {"load": f"/{name}"} for name in ("empty", "csi", "sub")} | {"raw": {"load": loads.RAW}}
    one = loads.run_pod(node, {name: {"wbps": "1Mi"} for name in paths}, paths, uid)
    files = [f"{path}/file" for path in volumes]
    loads.run(node, one, *(_write(file) for file in (*files, loads.RAW)), volumes=volumes, raw=raw)

    two = loads.run_pod(
        node, {"a": {"wbps": "1Mi"}, "b": {"wbps": "512Ki"}}, {"a": {"load": "/a"}, "b": {"load": "/b"}}
    )
    loads.run(node, two, _write("/a/a"), _write("/b/b"), volumes={"/a": "/srv/linear", "/b": "/srv/linear"})

    shared = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, {"data": {"first": "/data", "second": "/mnt"}})
    for name, path in ("first", "/data"), ("second", "/mnt"):
        loads.run(node, shared, _write(f"{path}/{name}"), volumes={path: "/srv/partition"}, name=name)

    layers = loads.run_pod(node, {"*": {"wbps": "1Mi"}}, {})
    loads.run(node, layers, _write("/file"), volumes={})

    every = [
        Load("emptyDir", one, root, "wbytes", MIB),
        Load("CSI, folder named after the PV", one, disks["/srv/whole"], "wbytes", MIB),
        Load("subPath", one, disks["/srv/logical"], "wbytes", MIB),
        Load("raw block", one, node.sh(f"lsblk -dno MAJ:MIN {raw}").strip(), "wbytes", MIB),
        Load("two volumes on one disk: their sum", two, disks["/srv/linear"], "wbytes", MIB * 3 // 2),
        Load("two containers, one volume: shared", shared, disks["/srv/partition"], "wbytes", MIB),
        Load("the writable layer", layers, root, "wbytes", MIB),
    ]
    loads.judge(table, lambda: loads.watch(node, "kinds of volumes: bytes, direct", every))
    for pod in (one, two, shared, layers):
        node.cri.remove_pod(pod)


def test_from_the_first_instruction(
    node: Node, enforcer: Enforcer, disks: Mapping[str, str], table: list[Row], driver: str
) -> None:
    """A program that writes at once writes in no second more than its limit, the first one included.

    The kernel gives out what may pass in a tenth of a second at a time (throtl_slice), and the last request as a whole.
    """
    pod = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, {"data": {"load": "/data"}})
    command = ["dd", "if=/dev/zero", "of=/data/first", "bs=64k", "oflag=direct"]
    mounts = [Mount(container_path="/data", host_path="/srv/whole")]
    container = node.cri.create(pod, command, name="load", mounts=mounts)
    load = Load("", pod, disks["/srv/whole"], "wbytes", MIB)
    written: list[tuple[float, int]] = []
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(node.cri.start, container)
        while not (begun := [at for at, done in written if done]) or written[-1][0] < begun[0] + 2:
            sample = node.sample(loads.stat(pod))
            written.append((sample.at, loads.count(sample.texts[0], load)))
            assert begun or written[-1][0] < written[0][0] + 60, starting
        starting.result()

    start = max(index for index, (_, done) in enumerate(written) if not done)
    most = max(
        later - before for at, before in written[start:] for then, later in written[start:] if 0 <= then - at <= 1
    )
    first = max(done for at, done in written if at <= written[start][0] + 1)
    table.append(Row(f"{driver}: from the first instruction", "direct, first second", MIBS, MIB, first))
    table.append(Row(f"{driver}: from the first instruction", "direct, most in any second", MIBS, MIB, most))
    assert MIB / 2 < most <= MIB * 1.1 + (64 << 10), written
    node.cri.remove_pod(pod)


def test_managers_that_start_again(
    node: Node, enforcer: Enforcer, disks: Mapping[str, str], table: list[Row], driver: str
) -> None:
    """While a pod writes, systemd reads its units anew, is executed anew, and the runtime is restarted: no limit is lost."""
    pod = loads.run_pod(node, {"data": {"rbps": "2Mi", "wbps": "1Mi"}}, {"data": {"load": "/data"}})
    jobs = tools.fio("/data/cold", "read", block=BLOCK), _write("/data/hot")
    loads.run(node, pod, *jobs, volumes={"/data": "/srv/whole"})
    stands = node.read(loads.io_max(pod))
    every = [
        # The processors of an emulated machine are busy with systemd and the runtime.
        Load("read", pod, disks["/srv/whole"], "rbytes", 2 * MIB, short=0.5),
        Load("write", pod, disks["/srv/whole"], "wbytes", MIB, short=0.5),
    ]
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(
            loads.watch, node, f"{driver}: over daemon-reload, daemon-reexec, restart of containerd", every
        )
        time.sleep(1)
        node.run("systemctl", "daemon-reload")
        node.run("systemctl", "daemon-reexec")
        node.containerd.restart()
        node.await_runtime()
        loads.judge(table, watching.result)
    assert node.read(loads.io_max(pod)) == stands
    enforcer.until(lambda: enforcer.status().connected)
    node.cri.remove_pod(pod)


@ON_SYSTEMD
def test_drift(node: Node, enforcer: Enforcer, disks: Mapping[str, str], table: list[Row]) -> None:
    """What somebody else writes over a limit is put back with the next look, and counted."""
    device = disks["/srv/whole"]
    pod = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, {"data": {"load": "/data"}})
    mounts = [Mount(container_path="/data", host_path="/srv/whole")]
    node.cri.create(pod, name="load", mounts=mounts)
    stands = node.read(loads.io_max(pod))
    before = enforcer.metric("noisegate_node_drift_repairs_total", kind="disk")

    node.write(loads.io_max(pod), f"{device} wbps=max wiops=max")
    gone = node.sample(loads.io_max(pod))
    assert gone.texts == ("",)
    enforcer.until(lambda: node.read(loads.io_max(pod)) == stands)
    back = node.sample(loads.io_max(pod))
    table.append(Row("drift", "between two looks, and until it is put back", SECONDS, RECONCILE, back.at - gone.at))
    assert enforcer.metric("noisegate_node_drift_repairs_total", kind="disk") == before + 1
    node.cri.remove_pod(pod)


def test_what_is_others_stays(node: Node, enforcer: Enforcer, disks: Mapping[str, str]) -> None:
    """When the pod goes, what stood before us stands again; what others wrote for other devices was never touched."""
    held, other = disks["/srv/whole"], disks["/srv/logical"]
    uid = str(uuid.uuid4())
    # The pod's cgroup is there before its sandbox: the kubelet makes it.
    cgroup = loads.pod_cgroup(node, uid)
    for device in held, other:
        node.write(f"/sys/fs/cgroup{cgroup}/io.max", f"{device} rbps=7340032 wiops=77")
    before = node.read(f"/sys/fs/cgroup{cgroup}/io.max")
    pod = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, {"data": {"load": "/data"}}, uid)
    node.cri.create(pod, name="load", mounts=[Mount(container_path="/data", host_path="/srv/whole")])
    during = sorted(node.read(loads.io_max(pod)).splitlines())
    assert during == sorted(
        [f"{held} rbps=max wbps=1048576 riops=max wiops=256", f"{other} rbps=7340032 wbps=max riops=max wiops=77"]
    )
    assert [one.observed for one in enforcer.pod(uid).disk] == [one.asked for one in enforcer.pod(uid).disk]

    node.cri.remove_pod(pod)
    enforcer.until(lambda: uid not in {one.uid for one in enforcer.status().pods})
    assert node.read(loads.io_max(pod)) == before


@ON_SYSTEMD
def test_a_volume_of_which_nobody_says_where_it_is(node: Node, enforcer: Enforcer) -> None:
    """With neither the API server nor the webhook's annotation a pod is refused, and told why."""
    pod = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, None)
    with pytest.raises(
        CriError, match=r"where container load has volume data is not known.*noisegate\.io/volume-paths"
    ):
        node.cri.create(pod, name="load", mounts=[Mount(container_path="/data", host_path="/srv/whole")])
    node.cri.remove_pod(pod)


@ON_SYSTEMD
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/mnt/fuse", r"on fuse\.ext4 and cannot be limited: a process reads and writes for it"),
        ("/mnt/nfs/folder", "on nfs4 and cannot be limited: its reads and writes go over a network"),
        ("/mnt/memory", "on tmpfs and cannot be limited: it is kept in memory"),
    ],
    ids=["fuse", "nfs", "tmpfs"],
)
def test_volumes_without_a_disk(node: Node, enforcer: Enforcer, diskless: int, path: str, told: str) -> None:
    """A volume that cannot be limited has its pod refused when the container is made, with the reason."""
    pod = loads.run_pod(node, {"data": {"wbps": "1Mi"}}, {"data": {"load": "/data"}})
    with pytest.raises(CriError, match=f"noisegate: {path} is {told}"):
        node.cri.create(pod, name="load", mounts=[Mount(container_path="/data", host_path=path)])
    node.cri.remove_pod(pod)


@ON_SYSTEMD
def test_a_mount_that_hangs(node: Node, enforcer: Enforcer, disks: Mapping[str, str], diskless: int) -> None:
    """While whatever serves a mount does not answer, other pods start and an enforcer does; its own pod is refused later.

    The runtime itself looks at what it mounts, before it asks us: that container waits there.
    """
    asked, paths = {"data": {"wbps": "1Mi"}}, {"data": {"load": "/data"}}
    data, fuse = (
        Mount(container_path=here, host_path=there) for here, there in (("/data", "/srv/whole"), ("/fuse", "/mnt/fuse"))
    )
    beside, waiting, other = (loads.run_pod(node, asked, paths) for _ in range(3))
    node.cri.start(node.cri.create(beside, name="load", mounts=[data, fuse]))
    with ThreadPoolExecutor(1) as threads:
        node.run("kill", "-STOP", str(diskless))
        try:
            # Attributes that are known are good for a second.
            assert node.run("sh", "-c", "sleep 1.5; stat /mnt/fuse", timeout=3, check=False).late
            hung = Mount(container_path="/data", host_path="/mnt/fuse")
            refused = threads.submit(node.cri.create, waiting, name="load", mounts=[hung])
            node.cri.start(node.cri.create(other, name="load", mounts=[data]))
            enforcer.kill()
            enforcer.start()
            for pod in beside, other:
                (disk,) = enforcer.pod(pod.uid).disk
                assert (disk.device, disk.observed) == (disks["/srv/whole"], disk.asked)
        finally:
            node.run("kill", "-CONT", str(diskless))
        with pytest.raises(CriError, match="fuse"):
            refused.result()
    for pod in beside, waiting, other:
        node.cri.remove_pod(pod)


def _write(path: str) -> list[str]:
    return tools.fio(path, "write", block=BLOCK)
