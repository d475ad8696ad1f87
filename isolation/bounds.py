"""Requests and limits of bandwidth, as disk and network share them (pod-api.md, common rules).

`{"requests": {KEY: Q}, "limits": {KEY: Q}}`: the keys are independent of each other; for one key, a limit alone is its
request too, and a request alone has no upper bound.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from noisegate.isolation.payload import Payload, Step
from noisegate.isolation.problems import Code, shown
from noisegate.isolation.quantity import BAD_QUANTITY, NOT_WHOLE, NotWholeError, suggest, whole
from noisegate.isolation.quantity import format as write

REQUEST_EXCEEDS_LIMIT: Final = Code(
    "NG008",
    "request-exceeds-limit",
    "What is promised is more than what is allowed.",
    'networkio.kubernetes.io/resources: \'{"requests": {"egress": "60M"}, "limits": {"egress": "50M"}}\'',
    'networkio.kubernetes.io/resources: \'{"requests": {"egress": "50M"}, "limits": {"egress": "60M"}}\'',
)
REQUEST_WITHOUT_LIMIT: Final = Code(
    "NG052",
    "request-without-limit",
    "Warning: a request without a limit has no upper bound, and nothing reserves or enforces it yet.",
    'networkio.kubernetes.io/resources: \'{"requests": {"egress": "50M"}}\'',
    'networkio.kubernetes.io/resources: \'{"requests": {"egress": "50M"}, "limits": {"egress": "60M"}}\'',
)
CODES: Final = (REQUEST_EXCEEDS_LIMIT, REQUEST_WITHOUT_LIMIT)

QosClass = Literal["guaranteed", "burstable"]

MOST_NAMED: Final = 5
"""Names told in one warning; the API server cuts warnings at 256 characters."""


class Bound(NamedTuple):
    """What is asked for one direction. None: not asked for; zero cannot be asked for.

    Attributes:
        request: What is to be reserved. It is None beside a limit that is derived, and only there.
        limit: Upper bound. None beside a request: there is none.
        follows: Whether only the limit was written, so that the request follows it.
    """

    request: int | None = None
    limit: int | None = None
    follows: bool = False


UNSET: Final = Bound()


class Change(NamedTuple):
    """Something that may not change on a running pod: where, what stands there now, and what is wrong with it."""

    path: str
    value: str
    message: str


Steps = tuple[Step, ...]
Members = dict[str, Any]
Groups = tuple[Members, Members]
Reader = Callable[[object, Steps, str, str], int | None]
"""Reads a value that stands, after some steps, in a group (`requests` or `limits`) under a key."""

_GROUPS: Final = frozenset({"requests", "limits"})


def groups(payload: Payload, value: object, known: frozenset[str], steps: Steps = ()) -> Groups:
    """Return the members of `requests` and of `limits`; what is wrong is reported and left out."""
    both = payload.members(value, _GROUPS, *steps)
    requests: Members | None = None
    limits: Members | None = None
    if both:
        if "requests" in both:
            requests = payload.members(both["requests"], known, *steps, "requests")
        if "limits" in both:
            limits = payload.members(both["limits"], known, *steps, "limits")
    return requests or {}, limits or {}


def bound(payload: Payload, asked: Groups, key: str, read: Reader, steps: Steps = ()) -> Bound:
    """Return what is asked for one key.

    Args:
        payload: Where problems are reported.
        asked: Members of `requests` and of `limits`.
        key: Such as `rbps`.
        read: Returns a value in base units, or None once it has reported why there is none.
        steps: Where `requests` and `limits` stand.
    """
    requests, limits = asked
    request = limit = None
    if key in requests:
        request = read(requests[key], steps, "requests", key)
    if key in limits:
        limit = read(limits[key], steps, "limits", key)
        if request is None:
            return UNSET if limit is None else Bound(limit, limit, key not in requests)
        if limit is not None and request > limit:
            told = f'request "{shown(requests[key])}" is larger than limit "{shown(limits[key])}"'
            hint = "lower the request or raise the limit"
            payload.deny(REQUEST_EXCEEDS_LIMIT, requests[key], told, *steps, "requests", key, hint=hint)
    elif request is None:
        return UNSET
    return Bound(request, limit)


def amount(payload: Payload, value: object, unit: str, steps: Steps) -> int | None:
    """Return a whole, positive quantity that is written as a string, or report why it is none."""
    text = payload.string(value, *steps)
    if text is None:
        return None
    try:
        return whole(text)
    except ValueError as error:
        explain_quantity(payload, text, error, unit, steps)
        return None


def explain_quantity(
    payload: Payload, text: str, error: ValueError, unit: str, steps: Steps, *, within: str = "", rest: str = ""
) -> None:
    """Report why a quantity is refused, and what was probably meant.

    Args:
        payload: Where it is reported.
        text: The quantity.
        error: Why `quantity.whole` refused it.
        unit: Such as `bits per second`.
        steps: Where it stands.
        within: The whole value, if there is more of it than the quantity.
        rest: What is to stand behind the quantity in the mended value.
    """
    spelling = meant(text)
    hint = f"write {spelling}{rest}" if spelling else ""
    if isinstance(error, NotWholeError):
        payload.deny(NOT_WHOLE, within or text, f'"{shown(text)}" {error} of {unit}', *steps, hint=hint)
        return
    if text == "max" and "limits" in steps:
        hint = "leave the limit out and give a request: then there is no upper bound"
    payload.deny(BAD_QUANTITY, within or text, f'"{shown(text)}" {error}; the unit is {unit}', *steps, hint=hint)


def meant(text: str) -> str:
    """Return the whole, positive quantity that a text is or was obviously meant to be; else an empty string."""
    for spelling in (text, suggest(text), text.partition("/")[0]):
        try:
            whole(spelling)
        except ValueError:
            continue
        return spelling
    return ""


def qos_class(bounds: Iterable[Bound]) -> QosClass:
    """Return guaranteed where every request has a limit that equals it; what is derived or not asked for does not count."""
    for request, limit, _ in bounds:
        if request != limit and request is not None:
            return "burstable"
    return "guaranteed"


def warn_unlimited(payload: Payload, names: Sequence[str]) -> None:
    """Warn once of all requests without a limit."""
    more = len(names) - MOST_NAMED
    named = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    payload.warn(
        REQUEST_WITHOUT_LIMIT,
        named,
        f"{named}: a request without a limit is not reserved or enforced by anything yet",
        hint="give a limit",
    )


def changes(old: Bound, new: Bound) -> Iterator[tuple[Literal["requests", "limits"], str]]:
    """Yield what may not change on a running pod: in which group, and why.

    The limit of what had one may get another value, and a request that came from its limit follows. Limits that are
    derived change with what they are derived from.
    """
    if _limited(old) != _limited(new):
        yield "limits", f"a limit may not be {'removed' if _limited(old) else 'added'} on a running pod"
    if not (_promised(old) or _promised(new)):
        return
    if old.request is None:
        yield "requests", "a request may not be added on a running pod"
    elif new.request is None:
        yield "requests", "a request may not be removed on a running pod"
    elif new.request != old.request:
        why = "; a limit alone is its request too" if new.follows else ""
        yield (
            "requests",
            f"the request may not change on a running pod: it is {write(old.request)}, not {write(new.request)}{why}",
        )


def _limited(asked: Bound) -> bool:
    """Tell whether the limit was written."""
    return asked.limit is not None and asked.request is not None


def _promised(asked: Bound) -> bool:
    """Tell whether the request was written."""
    return asked.request is not None and not asked.follows
