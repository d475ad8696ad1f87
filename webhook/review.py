"""AdmissionReview on the wire: bytes to request, verdict to bytes."""

from typing import NamedTuple


class Answer(NamedTuple):
    """What goes back to the API server, and what is told about it.

    Attributes:
        status: HTTP status.
        body: AdmissionReview JSON with status 200, one plain sentence otherwise.
        result: `allowed`, `patched`, `denied`, `warned`, `errored` or `refused`: label of the request counter.
        codes: Codes of the problems found, to be counted.
        log: One structured line to write, or None.
    """

    status: int
    body: bytes
    result: str
    codes: tuple[str, ...] = ()
    log: dict[str, object] | None = None
