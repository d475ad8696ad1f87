"""Disk bandwidth of a pod's volumes."""

import json
from typing import Any

import msgspec
import pytest

from noisegate.isolation import disk
from noisegate.isolation.bounds import UNSET, Bound, Change
from noisegate.isolation.catalogue import Catalogue, Claim, StorageClass
from noisegate.isolation.disk import DiskRequest, VolumeRequest
from noisegate.isolation.policy import DiskPolicy
from noisegate.isolation.problems import Findings, Problem
from noisegate.webhook.objects import PodSpec

AT = "metadata.annotations[blockio.kubernetes.io/resources]"
NO_QUANTITY = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"
SPEED = 50 << 20
BOTH = Bound(SPEED, SPEED)
ALONE = Bound(SPEED, SPEED, follows=True)
DERIVED = Bound(None, 12800)

Told = tuple[str, str, str, str, str]


def read(value: Any) -> tuple[DiskRequest | None, Findings]:
    """Return what a value means, and what is found in it; a value that is no text is written as JSON."""
    found = Findings()
    return disk.read(value if isinstance(value, str) else json.dumps(value), found), found


def limits(**values: object) -> dict[str, object]:
    """Return an entry that has limits only."""
    return {"limits": values}


FOUR = {"requests": {"rbps": "50Mi/4k", "wbps": "50Mi/4k"}, "limits": {"rbps": "50Mi/4k", "wbps": "50Mi/4k"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            {"volume2": FOUR, "volume1": FOUR},
            DiskRequest(
                (
                    VolumeRequest("volume1", BOTH, BOTH, DERIVED, DERIVED),
                    VolumeRequest("volume2", BOTH, BOTH, DERIVED, DERIVED),
                ),
                4096,
                "guaranteed",
            ),
            id="the manual's example",
        ),
        pytest.param(
            {"*": limits(wbps="50Mi/8k")},
            DiskRequest((VolumeRequest("*", UNSET, ALONE, UNSET, Bound(None, 6400)),), 8192, "guaranteed"),
            id="limit alone, writable layers, another block size",
        ),
        pytest.param(
            {"v": {"requests": {"rbps": "25Mi"}, "limits": {"rbps": "50Mi"}}},
            DiskRequest((VolumeRequest("v", Bound(SPEED // 2, SPEED), UNSET, DERIVED),), 4096, "burstable"),
            id="burstable",
        ),
        pytest.param(
            {"v": limits(rbps="50Mi", riops=200, wiops="1k")},
            DiskRequest(
                (VolumeRequest("v", ALONE, UNSET, Bound(200, 200, follows=True), Bound(1000, 1000, follows=True)),),
                4096,
                "guaranteed",
            ),
            id="operations as a number and as a string",
        ),
        pytest.param(
            {"v": limits(rbps="50M/32k")},
            DiskRequest(
                (VolumeRequest("v", Bound(5 * 10**7, 5 * 10**7, follows=True), UNSET, Bound(None, 1525)),), 32768
            ),
            id="derived operations are rounded down",
        ),
    ],
)
def test_sound_requests(value: object, expected: DiskRequest) -> None:
    """A sound value has one meaning, and no word is said."""
    request, found = read(value)
    assert (request, found.problems, found.warnings) == (expected, [], [])


def test_requests_without_limits() -> None:
    """Requests without limits are admitted with one warning; operations that are asked for are not derived."""
    request, found = read(
        {
            "b": {"requests": {"rbps": "50Mi", "riops": 5}, "limits": {"rbps": "50Mi"}},
            "a": {"requests": {"wbps": "50Mi"}},
        }
    )
    assert request == DiskRequest(
        (VolumeRequest("a", UNSET, Bound(SPEED)), VolumeRequest("b", BOTH, UNSET, Bound(5))), 4096, "burstable"
    )
    assert found.problems == []
    told = "a.wbps, b.riops: a request without a limit is not reserved or enforced by anything yet"
    assert found.warnings == [Problem("NG052", AT, "a.wbps, b.riops", told, "give a limit")]


def test_asks_for_nothing() -> None:
    """An empty object is no request, with a warning."""
    request, found = read({})
    assert (request, found.problems) == (None, [])
    assert found.warnings == [Problem("NG051", AT, "{}", "it asks for nothing", "leave the annotation out")]


@pytest.mark.parametrize("entry", [{}, {"limits": {}}, {"requests": {}, "limits": {}}])
def test_volume_asks_for_nothing(entry: object) -> None:
    """A volume that asks for nothing counts as not listed, with a warning."""
    request, found = read({"a": entry, "b": limits(rbps="50Mi")})
    assert request == DiskRequest((VolumeRequest("b", ALONE, UNSET, DERIVED),))
    assert found.problems == []
    told = "volume a asks for nothing and counts as not listed"
    assert found.warnings == [Problem("NG051", f"{AT}.a", json.dumps(entry), told, "leave it out")]
    assert read({"a": entry})[0] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            "", [("NG005", "", "", "the value is empty; it must be JSON", "leave the annotation out")], id="empty"
        ),
        pytest.param("null", [("NG004", "", "", "must be an object, not null", "")], id="null"),
        pytest.param([], [("NG004", "", "[]", "must be an object, not a list", "")], id="list"),
        pytest.param('""', [("NG004", "", "", "must be an object, not a string", "")], id="string"),
        pytest.param(
            '{{"v1":{}}}',
            [("NG001", "", '{{"v1":{}}}', 'not JSON at line 1, column 2: {"v1":{}}} is not expected here', "")],
            id="braces",
        ),
        pytest.param({"v1": None}, [("NG004", ".v1", "", "must be an object, not null", "")], id="null volume"),
        pytest.param(
            {"v1": {"requests": {"rbps": 50, "wbps": "50Mi/4k"}}},
            [("NG004", ".v1.requests.rbps", "50", "must be a string, not a number", 'write "50"')],
            id="number",
        ),
        pytest.param(
            {"v1": {"Requests": {"RBPS": "50Mi/4k"}}},
            [
                (
                    "NG003",
                    ".v1.Requests",
                    '{"RBPS": "50Mi/4k"}',
                    'unknown key "Requests"; allowed: limits, requests',
                    "write requests",
                )
            ],
            id="keys have a case",
        ),
        pytest.param(
            {"v1": {"limit": {}}},
            [("NG003", ".v1.limit", "{}", 'unknown key "limit"; allowed: limits, requests', "write limits")],
            id="misspelt group",
        ),
        pytest.param(
            {"v1": limits(rpbs="50Mi")},
            [
                (
                    "NG003",
                    ".v1.limits.rpbs",
                    "50Mi",
                    'unknown key "rpbs"; allowed: rbps, riops, wbps, wiops',
                    "write rbps",
                )
            ],
            id="misspelt key",
        ),
        pytest.param(
            '{"v1":{"limits":{"rbps":"50Mi"}},"v1":{"limits":{"rbps":"60Mi"}}}',
            [
                (
                    "NG002",
                    ".v1",
                    '{"limits": {"rbps": "60Mi"}}',
                    'the key "v1" stands here more than once',
                    "keep one of them",
                )
            ],
            id="duplicate volume",
        ),
        pytest.param(
            {"v1": limits(rbps="50MiB/4k")},
            [
                (
                    "NG006",
                    ".v1.limits.rbps",
                    "50MiB/4k",
                    f'"50MiB" {NO_QUANTITY}; the unit is bytes per second',
                    "write 50Mi/4k",
                )
            ],
            id="unit word",
        ),
        pytest.param(
            {"v1": {"requests": {"rbps": "60Mi/4k"}, "limits": {"rbps": "50Mi/4k"}}},
            [
                (
                    "NG008",
                    ".v1.requests.rbps",
                    "60Mi/4k",
                    'request "60Mi/4k" is larger than limit "50Mi/4k"',
                    "lower the request or raise the limit",
                )
            ],
            id="request above limit",
        ),
        pytest.param(
            {"a": limits(rbps="50Mi/4k", wbps="50Mi/8k"), "b": limits(rbps="50Mi", wbps="50Mi/1M")},
            [
                (
                    "NG102",
                    ".a.limits.wbps",
                    "8k",
                    "block size 8k here and 4k in a.limits.rbps; a pod has one (4k where none is written)",
                    "write /4k in all of them",
                ),
                (
                    "NG102",
                    ".b.limits.wbps",
                    "1M",
                    "block size 1M here and 4k in a.limits.rbps; a pod has one (4k where none is written)",
                    "write /4k in all of them",
                ),
            ],
            id="block sizes differ",
        ),
        pytest.param(
            {"a": limits(rbps="50Mi"), "b": {"requests": {"rbps": "50Mi"}, "limits": {"rbps": "60Mi"}}},
            [
                (
                    "NG103",
                    ".b",
                    "",
                    "volume b is burstable and volume a is guaranteed; a pod has one class for its volumes",
                    "give all of them limits equal to their requests, or none of them",
                )
            ],
            id="classes differ",
        ),
        pytest.param(
            {"a": limits(rbps="100/4k", wbps="4096/4k")},
            [
                (
                    "NG104",
                    ".a.limits.rbps",
                    "100",
                    "100 bytes per second is less than one operation of 4k per second",
                    "raise the limit or name a smaller block size",
                )
            ],
            id="less than one operation",
        ),
        pytest.param(
            {"a": limits(riops=0, wiops=1.5), "b": limits(riops=True, wiops="12800/4k"), "c": limits(riops=1 << 63)},
            [
                (
                    "NG007",
                    ".a.limits.riops",
                    "0",
                    "0 is not a whole, positive number of operations per second up to 2^63-1",
                    "",
                ),
                (
                    "NG007",
                    ".a.limits.wiops",
                    "1.5",
                    "1.5 is not a whole, positive number of operations per second up to 2^63-1",
                    "",
                ),
                ("NG004", ".b.limits.riops", "true", "must be a number or a string, not true or false", ""),
                (
                    "NG006",
                    ".b.limits.wiops",
                    "12800/4k",
                    f'"12800/4k" {NO_QUANTITY}; the unit is operations per second',
                    "write 12800",
                ),
                (
                    "NG007",
                    ".c.limits.riops",
                    "9223372036854775808",
                    "9223372036854775808 is not a whole, positive number of operations per second up to 2^63-1",
                    "",
                ),
            ],
            id="operations",
        ),
    ],
)
def test_bad_values(value: object, expected: list[Told]) -> None:
    """Everything that is wrong is told in one pass, each with its path, value and mend, and nothing else is said."""
    _, found = read(value)
    assert found.problems == [Problem(code, AT + path, shown, told, hint) for code, path, shown, told, hint in expected]
    assert found.warnings == []


def test_what_is_understood_beside_problems() -> None:
    """Beside problems, what could be understood comes back: further problems can be found in it."""
    request, found = read({"a": [], "b": {"requests": {"rbps": "x", "wbps": "1Mi"}, "limits": {"rbps": "50Mi"}}})
    assert request == DiskRequest(
        (VolumeRequest("a"), VolumeRequest("b", BOTH, Bound(1 << 20), DERIVED)), 4096, "guaranteed"
    )
    assert [problem.path for problem in found.problems] == [f"{AT}.a", f"{AT}.b.requests.rbps"]


def spec(**fields: Any) -> PodSpec:
    """Return the spec of a pod."""
    return msgspec.convert(fields, PodSpec)


def test_fit() -> None:
    """Volumes are looked for in the pod, except for the writable layers and the StatefulSet's templates."""
    request = DiskRequest((VolumeRequest("*", BOTH), VolumeRequest("claims", BOTH), VolumeRequest("vol1", BOTH)))
    mounts = [{"name": "claims", "mountPath": "/c"}]
    found = Findings()
    disk.fit(
        request,
        spec(volumes=[{"name": "volume1"}], containers=[{"name": "app", "volumeMounts": mounts}]),
        found,
        claim_templates={"claims"},
    )
    told = "the pod has no volume vol1; it has volume1"
    assert found.problems == [Problem("NG105", f"{AT}.vol1", "vol1", told, "write volume1")]
    assert found.warnings == []


POLICY = DiskPolicy()
KNOWN = Catalogue(claims={"ns/c": Claim("fast")}, storage_classes={"fast": StorageClass("ebs.csi.aws.com")})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(limits(rbps="1Mi", wbps="50Mi/4k", riops=10, wiops=10), [], id="just enough"),
        pytest.param({"requests": {"rbps": "1k", "riops": 1}}, [], id="requests have no minimum"),
        pytest.param(
            limits(rbps="500k"),
            [(".limits.rbps", "500k", "500k bytes per second is below the minimum of 1Mi", "write at least 1Mi")],
            id="bytes read",
        ),
        pytest.param(
            limits(wbps="500k/64k"),
            [(".limits.wbps", "500k", "500k bytes per second is below the minimum of 1Mi", "write at least 1Mi")],
            id="bytes written, and so few operations that they are not told too",
        ),
        pytest.param(
            limits(riops=9),
            [(".limits.riops", "9", "9 operations per second is below the minimum of 10", "write at least 10")],
            id="read operations",
        ),
        pytest.param(
            limits(rbps="50Mi", wbps="5Mi", wiops="9"),
            [(".limits.wiops", "9", "9 operations per second is below the minimum of 10", "write at least 10")],
            id="write operations",
        ),
        pytest.param(
            limits(rbps="5Mi/1M"),
            [
                (
                    ".limits.rbps",
                    "5Mi/1M",
                    "5Mi/1M makes 5 operations per second, below the minimum of 10",
                    "write at least 10Mi/1M, name a smaller block size, or give riops",
                )
            ],
            id="derived operations",
        ),
    ],
)
def test_minimum(entry: object, expected: list[tuple[str, str, str, str]]) -> None:
    """Limits below the policy's minimum are told with the minimum; what is derived, where it comes from."""
    request, found = read({"v": entry})
    assert request is not None
    assert found.problems == []
    disk.judge(request, spec(), "ns", POLICY, KNOWN, found)
    assert found.problems == [
        Problem("NG107", f"{AT}.v{path}", value, told, hint) for path, value, told, hint in expected
    ]


def test_judge_looks_at_claims() -> None:
    """Claims of the volumes that ask are looked up; what stands in no spec is passed."""
    request = DiskRequest((VolumeRequest("*", BOTH), VolumeRequest("data", BOTH), VolumeRequest("elsewhere", BOTH)))
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "zzz"}},
        {"name": "other", "persistentVolumeClaim": {"claimName": "zzz"}},
    ]
    found = Findings()
    disk.judge(request, spec(volumes=volumes), "ns", POLICY, KNOWN, found)
    told = 'PersistentVolumeClaim "zzz" of volume data does not exist (yet)'
    assert (found.problems, found.warnings) == ([], [Problem("NG152", f"{AT}.data", "zzz", told)])


def test_mounts() -> None:
    """Of each volume that asks, the first mount or device in each container is said, init containers first."""
    request = DiskRequest(
        (VolumeRequest("*", BOTH), VolumeRequest("a", BOTH), VolumeRequest("b", BOTH), VolumeRequest("c", BOTH))
    )
    init = {"name": "init", "volumeMounts": [{"name": "b", "mountPath": "/b", "subPath": "x"}]}
    app = {
        "name": "app",
        "volumeMounts": [
            {"name": "other", "mountPath": "/o"},
            {"name": "b", "mountPath": "/b1"},
            {"name": "b", "mountPath": "/b2"},
        ],
        "volumeDevices": [{"name": "a", "devicePath": "/dev/a"}, {"name": "other", "devicePath": "/dev/o"}],
    }
    mounts = disk.mounts_of(request, spec(containers=[app], initContainers=[init]))
    assert mounts == {"a": {"app": "/dev/a"}, "b": {"init": "/b", "app": "/b1"}}
    assert [list(mounts), list(mounts["b"])] == [["a", "b"], ["init", "app"]]


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("data", "/data"),
        ("./data", "/data"),
        ("/data/", "/data"),
        ("//data", "/data"),
        ("/x/./../data//a/", "/data/a"),
        ("/../data", "/data"),
        ("/", "/"),
        ("...", "/..."),
    ],
)
def test_paths_in_the_container(written: str, there: str) -> None:
    """A volume is said to be where the container finds it, whatever spelling of that Kubernetes takes."""
    app = {
        "name": "app",
        "volumeMounts": [{"name": "a", "mountPath": written}],
        "volumeDevices": [{"name": "b", "devicePath": written}],
    }
    request = DiskRequest((VolumeRequest("a", BOTH), VolumeRequest("b", BOTH)))
    assert disk.mounts_of(request, spec(containers=[app])) == {"a": {"app": there}, "b": {"app": there}}


def test_mounts_of_writable_layers() -> None:
    """Writable layers are mounted nowhere."""
    assert disk.mounts_of(DiskRequest((VolumeRequest("*", BOTH),)), spec(containers=[{"name": "app"}])) == {}


def one(volume: str = "v", **bounds: Bound) -> DiskRequest:
    """Return a request for one volume."""
    return DiskRequest((VolumeRequest(volume, **bounds),))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(one(rbps=BOTH), one(rbps=BOTH), [], id="the same"),
        pytest.param(
            one(rbps=ALONE, riops=DERIVED),
            one(rbps=Bound(1 << 20, 1 << 20, follows=True), riops=Bound(None, 256)),
            [],
            id="limit, with what follows from it",
        ),
        pytest.param(
            one(rbps=BOTH),
            one(rbps=Bound(1 << 20, SPEED)),
            [
                Change(
                    f"{AT}.v.requests.rbps", "1Mi", "the request may not change on a running pod: it is 50Mi, not 1Mi"
                )
            ],
            id="request",
        ),
        pytest.param(
            one(rbps=BOTH),
            one(rbps=Bound(SPEED)),
            [Change(f"{AT}.v.limits.rbps", "", "a limit may not be removed on a running pod")],
            id="limit removed",
        ),
        pytest.param(
            one(rbps=ALONE, riops=DERIVED),
            one(rbps=ALONE, riops=Bound(9, 9, follows=True)),
            [Change(f"{AT}.v.limits.riops", "9", "a limit may not be added on a running pod")],
            id="a derived limit, now written",
        ),
        pytest.param(
            one("a", rbps=BOTH),
            one("b", rbps=BOTH),
            [
                Change(f"{AT}.a", "", "volume a may not be removed on a running pod"),
                Change(f"{AT}.b", "b", "volume b may not be added on a running pod"),
            ],
            id="another volume",
        ),
        pytest.param(
            None,
            one(rbps=BOTH),
            [Change(f"{AT}.v", "v", "volume v may not be added on a running pod")],
            id="asked for nothing",
        ),
        pytest.param(
            one(rbps=BOTH),
            None,
            [Change(f"{AT}.v", "", "volume v may not be removed on a running pod")],
            id="asks for nothing",
        ),
    ],
)
def test_changes(old: DiskRequest | None, new: DiskRequest | None, expected: list[Change]) -> None:
    """On a running pod only the value of a limit may change."""
    assert disk.changed(old, new) == expected


def test_too_many_volumes() -> None:
    """An annotation that lists more volumes than any pod has is refused unread."""
    found = Findings()

    assert disk.read("{" + ",".join(f'"v{n}":{{}}' for n in range(257)) + "}", found) is None
    assert [(problem.code, problem.message) for problem in found.problems] == [
        ("NG108", "257 volumes are listed; allowed: 256")
    ]
