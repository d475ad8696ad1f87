"""Requests and limits, as disk and network share them."""

from functools import partial

import pytest

from noisegate.isolation import bounds
from noisegate.isolation.bounds import UNSET, Bound, Groups, Steps
from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Findings, Problem, in_annotation

NO_QUANTITY = "is not a quantity: a number, then nothing, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei"
AT = "metadata.annotations[k].a"


def reading() -> Payload:
    """Return a payload that stands in annotation `k`."""
    return Payload(partial(in_annotation, "k"), Findings())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({}, ({}, {}), id="nothing"),
        pytest.param({"limits": {"x": 1}}, ({}, {"x": 1}), id="limits"),
        pytest.param({"requests": {"x": 1}}, ({"x": 1}, {}), id="requests alone"),
        pytest.param({"requests": {"x": 1}, "limits": {}}, ({"x": 1}, {}), id="requests"),
        pytest.param([], ({}, {}), id="no object"),
        pytest.param({"requests": 5, "limits": {"x": 1, "z": 2}}, ({}, {"x": 1}), id="partly wrong"),
    ],
)
def test_groups(value: object, expected: Groups) -> None:
    """Known members of both groups are returned, whatever else is wrong."""
    assert bounds.groups(reading(), value, frozenset({"x"}), ("a",)) == expected


def test_groups_tell_what_is_wrong() -> None:
    """Wrong groups and members are told with their paths."""
    given = reading()
    bounds.groups(given, {"requests": 5, "limits": {"z": 2}}, frozenset({"x"}), ("a",))
    assert given.found.problems == [
        Problem("NG004", f"{AT}.requests", "5", "must be an object, not a number"),
        Problem("NG003", f"{AT}.limits.z", "2", 'unknown key "z"; allowed: x'),
    ]


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        pytest.param({}, {}, UNSET, id="neither"),
        pytest.param({"x": 5}, {}, Bound(5, None), id="no upper bound"),
        pytest.param({}, {"x": 5}, Bound(5, 5, follows=True), id="request follows the limit"),
        pytest.param({"x": 5}, {"x": 5}, Bound(5, 5), id="guaranteed"),
        pytest.param({"x": 5}, {"x": 6}, Bound(5, 6), id="burstable"),
        pytest.param({"x": None}, {}, UNSET, id="bad request"),
        pytest.param({}, {"x": None}, UNSET, id="bad limit"),
        pytest.param({"x": None}, {"x": 6}, Bound(6, 6), id="bad request and a limit"),
        pytest.param({"x": 5}, {"x": None}, Bound(5, None), id="bad limit and a request"),
    ],
)
def test_bound(requests: dict[str, int | None], limits: dict[str, int | None], expected: Bound) -> None:
    """A limit alone is its request, a request alone has no upper bound, and what cannot be read is not asked for."""
    given = reading()

    def read(value: object, steps: Steps, group: str, key: str) -> int | None:
        assert (steps, key) == (("a",), "x")
        assert value == {"requests": requests, "limits": limits}[group]["x"]
        return value if isinstance(value, int) else None

    assert bounds.bound(given, (requests, limits), "x", read, ("a",)) == expected
    assert given.found.problems == []


def test_request_above_limit() -> None:
    """A request that is larger than its limit is told with both as they were written."""
    given = reading()
    sizes = {"60M": 60, "50M": 50}
    asked = bounds.bound(given, ({"x": "60M"}, {"x": "50M"}), "x", lambda value, *_: sizes[str(value)], ("a",))
    assert asked == Bound(60, 50)
    assert given.found.problems == [
        Problem(
            "NG008",
            f"{AT}.requests.x",
            "60M",
            'request "60M" is larger than limit "50M"',
            "lower the request or raise the limit",
        )
    ]


@pytest.mark.parametrize(
    ("value", "group", "expected"),
    [
        pytest.param(
            "50MB",
            "limits",
            ("NG006", "50MB", f'"50MB" {NO_QUANTITY}; the unit is bits per second', "write 50M"),
            id="unit word",
        ),
        pytest.param(
            "50M/4k",
            "limits",
            ("NG006", "50M/4k", f'"50M/4k" {NO_QUANTITY}; the unit is bits per second', "write 50M"),
            id="block size where there is none",
        ),
        pytest.param(
            "max",
            "requests",
            ("NG006", "max", f'"max" {NO_QUANTITY}; the unit is bits per second', ""),
            id="no such request",
        ),
        pytest.param(
            "max",
            "limits",
            (
                "NG006",
                "max",
                f'"max" {NO_QUANTITY}; the unit is bits per second',
                "leave the limit out and give a request: then there is no upper bound",
            ),
            id="no upper bound",
        ),
        pytest.param(
            "50m",
            "limits",
            ("NG007", "50m", '"50m" is not a whole, positive number of bits per second', "write 50M"),
            id="thousandths",
        ),
        pytest.param(
            "0", "limits", ("NG007", "0", '"0" is not a whole, positive number of bits per second', ""), id="zero"
        ),
        pytest.param(5, "limits", ("NG004", "5", "must be a string, not a number", 'write "5"'), id="number"),
    ],
)
def test_bad_amounts(value: object, group: str, expected: tuple[str, str, str, str]) -> None:
    """A value that is no whole, positive quantity is told with the unit and, where it is obvious, the mend."""
    given = reading()
    assert bounds.amount(given, value, "bits per second", ("a", group)) is None
    code, shown, message, hint = expected
    assert given.found.problems == [Problem(code, f"{AT}.{group}", shown, message, hint)]


def test_amount() -> None:
    """A whole, positive quantity is returned."""
    assert bounds.amount(reading(), "1.5k", "bits per second", ("a",)) == 1500


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param((), "guaranteed", id="nothing"),
        pytest.param((UNSET, Bound(None, 7), Bound(5, 5)), "guaranteed", id="what is derived does not count"),
        pytest.param((Bound(5, 5), Bound(5, 6)), "burstable", id="larger limit"),
        pytest.param((Bound(5, None), Bound(5, 5)), "burstable", id="no limit"),
    ],
)
def test_qos_class(asked: tuple[Bound, ...], expected: str) -> None:
    """Guaranteed is what has, for every key that is given, a limit equal to its request."""
    assert bounds.qos_class(asked) == expected


@pytest.mark.parametrize(
    ("names", "named"),
    [(["a", "b"], "a, b"), (["a", "b", "c", "d", "e", "f", "g"], "a, b, c, d, e and 2 more")],
    ids=["few", "many"],
)
def test_unlimited(names: list[str], named: str) -> None:
    """Requests without a limit are told in one warning."""
    given = reading()
    bounds.warn_unlimited(given, names)
    told = f"{named}: a request without a limit is not reserved or enforced by anything yet"
    assert given.found.warnings == [Problem("NG052", "metadata.annotations[k]", named, told, "give a limit")]


ADDED = ("limits", "a limit may not be added on a running pod")
REMOVED = ("limits", "a limit may not be removed on a running pod")
REQUEST_ADDED = ("requests", "a request may not be added on a running pod")
REQUEST_REMOVED = ("requests", "a request may not be removed on a running pod")
OTHER_REQUEST = ("requests", "the request may not change on a running pod: it is 5, not 6")
FOLLOWS = ("requests", f"{OTHER_REQUEST[1]}; a limit alone is its request too")
LIMIT_ONLY = Bound(5, 5, follows=True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(UNSET, UNSET, [], id="not asked for"),
        pytest.param(Bound(5, 5), Bound(5, 6), [], id="limit raised"),
        pytest.param(Bound(5, 9), Bound(5, 6), [], id="limit lowered"),
        pytest.param(LIMIT_ONLY, Bound(6, 6, follows=True), [], id="request follows"),
        pytest.param(LIMIT_ONLY, Bound(5, 6), [], id="the request that followed, now written"),
        pytest.param(Bound(5, 6), LIMIT_ONLY, [], id="the same request, now following"),
        pytest.param(Bound(None, 7), Bound(None, 8), [], id="derived"),
        pytest.param(Bound(None, 7), UNSET, [], id="derived no more"),
        pytest.param(Bound(5, 5), Bound(6, 6), [OTHER_REQUEST], id="request changed"),
        pytest.param(Bound(5, None), Bound(6, None), [OTHER_REQUEST], id="unlimited request changed"),
        pytest.param(Bound(5, 5), Bound(6, 6, follows=True), [FOLLOWS], id="request left out"),
        pytest.param(LIMIT_ONLY, Bound(6, 6), [OTHER_REQUEST], id="another request than the one that followed"),
        pytest.param(Bound(5, None), Bound(5, 6), [ADDED], id="limit added"),
        pytest.param(Bound(5, 6), Bound(5, None), [REMOVED], id="limit removed"),
        pytest.param(LIMIT_ONLY, Bound(5, None), [REMOVED], id="limit removed, its request written"),
        pytest.param(UNSET, LIMIT_ONLY, [ADDED], id="added as a limit"),
        pytest.param(UNSET, Bound(5, None), [REQUEST_ADDED], id="added as a request"),
        pytest.param(UNSET, Bound(5, 6), [ADDED, REQUEST_ADDED], id="added"),
        pytest.param(Bound(None, 7), Bound(5, 6), [ADDED, REQUEST_ADDED], id="was derived, now written"),
        pytest.param(LIMIT_ONLY, UNSET, [REMOVED], id="removed"),
        pytest.param(Bound(5, 6), UNSET, [REMOVED, REQUEST_REMOVED], id="both removed"),
    ],
)
def test_changes(old: Bound, new: Bound, expected: list[tuple[str, str]]) -> None:
    """On a running pod only the value of a limit may change, and a request that came from it follows."""
    assert list(bounds.changes(old, new)) == expected
