"""Who says what a pod asks for, and what the node makes of it."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement.intent.intent import Intent, Remembered, Sandbox, Watched, asks_node, choose, kept
from noisegate.enforcement.intent.spec import BlockDevice, Container, Mount, Spec
from noisegate.isolation import keys

UID: Final = "uid-1"
OTHER: Final = {"app": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
SPEC: Final = Spec(
    containers=(Container("app", (Mount("data", "/data"),)), Container("side", (), (BlockDevice("raw", "/dev/xda"),))),
    volumes=({"name": "data", "emptyDir": {}}, {"name": "raw", "persistentVolumeClaim": {"claimName": "c"}}),
)


def disk(limit: str = "4Mi", volume: str = "data") -> dict[str, str]:
    """Return an annotation that limits writes."""
    return {keys.DISK: f'{{"{volume}": {{"limits": {{"wbps": "{limit}"}}}}}}'}


def net(limit: str = "50M") -> dict[str, str]:
    """Return an annotation that limits what the pod sends."""
    return {keys.NETWORK: f'{{"limits": {{"egress": "{limit}"}}}}'}


def sandbox(annotations: dict[str, str], *, host_network: bool = False) -> Sandbox:
    """Return a pod as the runtime knows it."""
    return Sandbox(UID, "default", "app-0", {**OTHER, **annotations}, host_network)


def watched(
    annotations: dict[str, str],
    uid: str = UID,
    *,
    terminating: bool = False,
    mirror: bool = False,
    spec: Spec | None = SPEC,
) -> Watched:
    """Return a pod as the API server knows it."""
    return Watched(uid, "default", "app-0", annotations, "7", terminating, mirror, spec if annotations else None)


def egress(intent: Intent) -> int | None:
    """Return the limit of what the pod sends."""
    return None if intent.asked.network is None else intent.asked.network.egress.limit


def wbps(intent: Intent) -> int | None:
    """Return the limit of writes."""
    return None if intent.asked.disk is None else intent.asked.disk.volumes[0].wbps.limit


def test_the_watch_goes_first() -> None:
    """Before what is remembered and before the sandbox's old annotations; volumes come from the pod's spec."""
    remembered = choose(sandbox({}), watched(disk("2Mi"))).remembered()
    found = choose(sandbox(disk("1Mi")), watched(disk("4Mi")), remembered)
    assert (found.source, found.resource_version, wbps(found)) == ("watch", "7", 4 << 20)
    assert found.volumes == {"data": {"app": "/data"}}
    assert (found.uid, found.namespace, found.name) == (UID, "default", "app-0")
    assert found.kinds == ("disk",)


def test_what_the_watch_said_is_remembered_while_it_is_away() -> None:
    """After a restart without an API server the live change still holds, volumes too."""
    remembered = choose(sandbox(disk("1Mi")), watched(disk("4Mi"))).remembered()
    found = choose(sandbox(disk("1Mi")), None, remembered)
    assert (found.source, found.resource_version, wbps(found)) == ("ledger", "7", 4 << 20)
    assert found.volumes == {"data": {"app": "/data"}}
    assert found.remembered() == remembered


def test_the_runtime_goes_last() -> None:
    """With neither, its annotations serve, and the volumes are where `noisegate.io/volume-paths` says."""
    paths = {keys.VOLUME_PATHS: '{"data": {"app": "/data", "init": "/d"}, "other": {"app": "/o"}}'}
    found = choose(sandbox({**disk(), **paths}))
    assert (found.source, found.resource_version, wbps(found)) == ("runtime", "", 4 << 20)
    assert found.volumes == {"data": {"app": "/data", "init": "/d"}}


def test_volumes_are_where_the_container_finds_them() -> None:
    """However the path is written, the watch and the webhook's annotation say the same of it."""
    spec = Spec(containers=(Container("app", (Mount("data", "x/../data/"),)),), volumes=SPEC.volumes)
    where = {"data": {"app": "/data"}}
    assert choose(sandbox({}), watched(disk(), spec=spec)).volumes == where
    paths = {keys.VOLUME_PATHS: '{"data": {"app": "x/../data/"}}'}
    assert choose(sandbox({**disk(), **paths})).volumes == where


def test_a_sandbox_that_was_made_anew_is_newer_than_what_the_runtime_said_once() -> None:
    """What is remembered of the runtime gives way to what it says now."""
    remembered = choose(sandbox(net("1M"))).remembered()
    assert remembered.source == "runtime"
    assert egress(choose(sandbox(net("2M")), None, remembered)) == 2_000_000


def test_an_object_of_another_uid_is_another_pod() -> None:
    """The successor of the same name says nothing about this one."""
    found = choose(sandbox(net("1M")), watched(net("9M"), "uid-2"))
    assert (found.source, egress(found)) == ("runtime", 1_000_000)


def test_what_is_taken_back_is_taken_back() -> None:
    """The watch says that the pod asks for nothing, and it is believed."""
    remembered = choose(sandbox(net()), watched(net())).remembered()
    found = choose(sandbox(net()), watched({}), remembered)
    assert (found.source, found.kinds, dict(found.annotations)) == ("watch", (), {})


def test_a_pod_that_is_being_deleted_stays_as_it_is() -> None:
    """Nobody judges its changes any more; where nothing is remembered there is nothing else to go by."""
    remembered = choose(sandbox(net("1M")), watched(net("2M"))).remembered()
    gone = watched(net("9M"), terminating=True)
    assert egress(choose(sandbox(net("1M")), gone, remembered)) == 2_000_000
    assert egress(choose(sandbox(net("1M")), gone)) == 9_000_000


def test_the_image_of_a_static_pod_only_says_where_its_volumes_are() -> None:
    """Its file says what it asks for: anybody may annotate the image."""
    found = choose(sandbox(disk("1Mi")), watched(disk("9Mi"), mirror=True))
    assert (found.source, wbps(found), found.volumes) == ("runtime", 1 << 20, {"data": {"app": "/data"}})


@pytest.mark.parametrize(
    ("annotations", "path", "kinds"),
    [
        ({**disk("4MB"), **net()}, "metadata.annotations[blockio.kubernetes.io/resources].data.limits.wbps", ("network",)),
        ({**disk(), **net("50Mbps")}, "metadata.annotations[networkio.kubernetes.io/resources].limits.egress", ("disk",)),
        ({**disk(), keys.RDT_OWN_POD: "a b"}, "metadata.annotations[noisegate.io/rdt-class]", ("disk",)),
        ({**net(), keys.CNI_EGRESS: "1M", **disk()}, "metadata.annotations[kubernetes.io/egress-bandwidth]", ("disk",)),
        ({**disk(volume="none"), **net()}, "metadata.annotations[blockio.kubernetes.io/resources].none", ("network",)),
        ({**net(), keys.RDT_OWN_CONTAINER + "none": "gold"}, "metadata.annotations[noisegate.io/rdt-class.none]", ("network",)),
        (
            {**net(), keys.RDT_OWN_CONTAINER + "app": "gold", keys.RDT_RUNTIME_POD: "gold"},
            "metadata.annotations[noisegate.io/rdt-class.app]",
            ("network",),
        ),
    ],
)  # fmt: skip
def test_a_kind_that_cannot_be_meant_is_skipped(annotations: dict[str, str], path: str, kinds: tuple[str, ...]) -> None:
    """With the problem that admission would have told; the rest is applied."""
    found = choose(sandbox({}), watched(annotations))
    assert [problem.path for problem in found.problems] == [path]
    assert found.kinds == kinds
    assert len(found.asked.bad) == 1
    assert not found.asked.bad & set(kinds)


@pytest.mark.parametrize("known", [True, False])
def test_a_pod_on_the_host_network_has_nothing_to_shape(known: bool) -> None:
    """Whoever says that it is on it."""
    there = watched(net(), spec=Spec(host_network=True)) if known else None
    found = choose(sandbox(net(), host_network=not known), there)
    assert [problem.code for problem in found.problems] == ["NG201"]
    assert found.kinds == ()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("[]", ""),
        ('{"data": {"app": "/a"}, "data": {}}', ".data"),
        ('{"data": "/a"}', ".data"),
        ('{"data": {"app": 5}}', ".data.app"),
        ('{"other": {"app": null}}', ".other.app"),
        ('{"data": {"app": "/a"}} x', ""),
    ],
)
def test_bad_volume_paths_are_told_and_disk_is_skipped(text: str, path: str) -> None:
    """A value that is not exactly volume -> container -> path leads to no disk."""
    found = choose(sandbox({**disk(), **net(), keys.VOLUME_PATHS: text}))
    assert [problem.path for problem in found.problems] == [f"metadata.annotations[noisegate.io/volume-paths]{path}"]
    assert (found.kinds, found.volumes) == (("network",), {})


def test_volume_paths_are_read_only_where_they_are_needed() -> None:
    """Not where the spec is known, and not where nothing but writable layers asks."""
    assert choose(sandbox({}), watched({**disk(), keys.VOLUME_PATHS: "x"})).problems == ()
    assert choose(sandbox({**disk(volume="*"), keys.VOLUME_PATHS: "x"})).problems == ()


def test_a_raw_block_volume_has_the_path_of_its_device() -> None:
    """As the pod's spec says it."""
    assert choose(sandbox({}), watched(disk(volume="raw"))).volumes == {"raw": {"side": "/dev/xda"}}


def test_a_change_that_cannot_be_meant_leaves_what_is_in_force() -> None:
    """The kind stays as it was, the others change, and the problem is told; so it is after a restart, too."""
    remembered = choose(sandbox({}), watched({**disk("4Mi"), **net("1M")})).remembered()
    found = choose(sandbox({}), watched({**disk("4MB"), **net("2M")}), remembered)
    assert (wbps(found), egress(found), found.volumes) == (4 << 20, 2_000_000, {"data": {"app": "/data"}})
    assert [problem.value for problem in found.problems] == ["4MB"]
    assert found.asked.bad == {"disk"}
    again = choose(sandbox({}), None, found.remembered())
    assert (wbps(again), egress(again), again.problems) == (4 << 20, 2_000_000, ())


def test_where_all_that_is_ours_is_skipped_nothing_is_in_force() -> None:
    """What is left is the runtime's own business; a second reading, of what was in force, says the same."""
    found = choose(sandbox({**disk("4MB"), keys.RDT_RUNTIME_POD: "gold"}))
    assert (found.kinds, dict(found.annotations), found.asked.rdt) == ((), {}, None)
    assert found.asked.bad == {"disk"}
    assert len(found.problems) == 1


def test_only_what_the_node_reads_is_kept() -> None:
    """Neither other people's annotations nor those of ours that the webhook alone reads."""
    own = {**disk(), **net(), keys.RDT_OWN_POD: "a", keys.RDT_OWN_CONTAINER + "c": "b", keys.CNI_INGRESS: "1M"}
    runtime = {keys.RDT_RUNTIME_POD: "a", keys.RDT_RUNTIME_CONTAINER + "c": "b", keys.VOLUME_PATHS: "{}"}
    others = {
        **OTHER,
        keys.NETWORKS: "n",
        keys.PROFILE: "p",
        keys.REQUIRED_PLUGINS: "[]",
        "noisegate.io/rdt-classy": "x",
    }
    assert kept({**own, **runtime, **others}) == {**own, **runtime}


@pytest.mark.parametrize(
    ("annotations", "asks"),
    [
        ({}, False),
        (OTHER, False),
        (disk(), True),
        (net(), True),
        ({keys.RDT_OWN_POD: "a"}, True),
        ({keys.RDT_OWN_CONTAINER + "a": "a"}, True),
        ({"noisegate.io/rdt-classy": "a", keys.PROFILE: "p", keys.VOLUME_PATHS: "{}"}, False),
        ({keys.RDT_RUNTIME_POD: "a", keys.CNI_EGRESS: "1M", keys.NETWORKS: "n"}, False),
    ],
)
def test_plain_pods_are_told_apart(annotations: dict[str, str], asks: bool) -> None:
    """Only what the runtime and the CNI cannot do themselves is the node's."""
    assert asks_node(annotations) is asks
    assert bool(choose(sandbox(annotations)).kinds) is asks


TEXTS: Final = st.sampled_from(
    [
        "",
        "{}",
        "x",
        *disk().values(),
        *disk("4MB").values(),
        *net().values(),
        *net("x").values(),
        '{"data": {"a": "/a"}}',
    ]
)
KEYS: Final = st.sampled_from([keys.DISK, keys.NETWORK, keys.RDT_OWN_POD, keys.RDT_RUNTIME_POD, keys.VOLUME_PATHS, "x"])
ANNOTATIONS: Final = st.dictionaries(KEYS, TEXTS)


@given(ANNOTATIONS, st.none() | ANNOTATIONS, st.none() | ANNOTATIONS, st.booleans(), st.booleans())
def test_whatever_is_said_there_is_an_answer_that_stands(
    runtime: dict[str, str],
    now: dict[str, str] | None,
    before: dict[str, str] | None,
    terminating: bool,
    mirror: bool,
) -> None:
    """Nothing raises; what is in force can be meant; and remembered, it is what is in force without the watch."""
    earlier = None if before is None else choose(sandbox({}), watched(kept(before))).remembered()
    there = None if now is None else watched(kept(now), terminating=terminating, mirror=mirror)
    found = choose(sandbox(runtime), there, earlier)
    assert "x" not in found.annotations
    in_force = choose(sandbox(runtime), watched(dict(found.annotations), spec=None), found.remembered())
    assert in_force.asked._replace(bad=frozenset()) == found.asked._replace(bad=frozenset())
    assert set(found.kinds) <= {"disk", "network", "rdt"}
    if found.source == "ledger" or (found.source == "watch" and not found.problems):
        again = choose(sandbox(runtime), None, found.remembered())
        assert (again.asked, again.volumes) == (found.asked, found.volumes)


def test_what_is_remembered_can_be_told_apart() -> None:
    """It holds annotations and volumes as plain maps, for a file."""
    remembered = choose(sandbox({}), watched(disk())).remembered()
    assert remembered == Remembered("watch", "7", disk(), {"data": {"app": "/data"}})
