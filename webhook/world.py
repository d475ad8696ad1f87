"""What decisions are made in at the moment: rules, catalogue and classes, each as its files last made sense.

    files on disk -> watch -> World.take_... -> one new admit.World, swapped in whole -> decide

What cannot be used raises, and nothing is changed; `watch` keeps the reason for readiness, metrics and log.
"""

import math
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from noisegate.isolation.catalogue import Catalogue
from noisegate.service import manifests, rdtclasses
from noisegate.service.faults import ConfigError, Fault
from noisegate.service.log import Log
from noisegate.service.manifests import Document
from noisegate.service.watch import UnreadableError, Watch
from noisegate.webhook import admit, inventory, review, rules
from noisegate.webhook.memory import Memory
from noisegate.webhook.metrics import Metrics
from noisegate.webhook.review import Answer
from noisegate.webhook.rules import NO_RULES
from noisegate.webhook.settings import LiveKind, Settings

if TYPE_CHECKING:
    from noisegate.webhook.live import Live

_FIELDS: Final[Mapping[LiveKind, str]] = {
    "networks": "networks",
    "claims": "claims",
    "storageClasses": "storage_classes",
}
"""Where each kind stands in the catalogue."""

Files = Mapping[str, bytes]
"""Contents of files that belong together, by path."""

GRACE: Final = 300.0
"""Seconds for which the previous rules satisfy validation after a change: a replica that has not read the new file yet
may have mutated the pod (kubelets refresh a mounted ConfigMap within about a minute, and pods wait in between)."""


class _State(NamedTuple):
    """The world until the previous rules expire, and after that; one reference, so that it changes in one step."""

    sooner: admit.World
    later: admit.World
    until: float


class World:
    """Holds the world, decides in it, and takes new files into it. Read from any thread; written from one at a time.

    Args:
        settings: What is allowed, which files there are, and of which kinds the catalogue is complete.
        clock: Seconds that never go back.

    Attributes:
        watches: The files it follows; not loaded yet.
        prefetch: What a decision must wait for; None where nothing is ever waited for.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        first = admit.World(policy=settings.policy, memory=Memory())
        self._state = _State(first, first, -math.inf)
        self._complete = settings.catalogue.complete
        self._clock = clock
        self.prefetch: Callable[[bytes], Awaitable[None] | None] | None = None
        self._live: Live | None = None
        self._known_live: dict[str, Mapping[str, Any] | None] = {}
        self._has_rules = False
        self._rule_notes: tuple[str, ...] = ()
        self._catalogue_notes: tuple[str, ...] = ()
        classes = settings.policy.rdt.classes
        watches = (
            Watch("mutations", [settings.server.mutations or shipped_rules()], self.take_rules),
            Watch("rdt-classes", [classes] if classes else [], self.take_classes),
            Watch("catalogue", settings.catalogue.files, self.take_catalogue),
        )
        self.watches: Final = tuple(watch for watch in watches if watch.sources)

    def go_live(self, live: "Live", kinds: tuple[LiveKind, ...]) -> None:
        """Take these kinds from the cluster, and no longer from files. Until they are listed nothing is known of them."""
        self._live = live
        self.prefetch = live.prefetch
        self._known_live = dict.fromkeys(_FIELDS[kind] for kind in kinds)

    def take_live(self, kind: LiveKind, found: Mapping[str, Any]) -> None:
        """Take everything of a kind, as the cluster has it now."""
        self._known_live[_FIELDS[kind]] = found
        self._know(self._state.later.catalogue)

    def reasons(self) -> list[str]:
        """Return why nothing can be decided yet, a line each."""
        return [] if self._live is None else self._live.reasons()

    def follow(self, metrics: Metrics, log: Log) -> Coroutine[Any, Any, None] | None:
        """Return what keeps up to date what is taken from the cluster; None where nothing is."""
        return None if self._live is None else self._live.follow(metrics, log)

    def load(self) -> None:
        """Put the files as they are now into force, for the first time.

        Raises:
            ConfigError: Everything that cannot be read or used, of all files.
        """
        faults: list[Fault] = []
        for watch in self.watches:
            try:
                watch.load()
            except ConfigError as error:
                faults += error.faults
            except UnreadableError as error:
                path, _, reason = str(error).rpartition(": ")
                faults.append(Fault(path or watch.what, 0, 0, "", f"cannot be read: {reason}"))
        if faults:
            raise ConfigError(faults)

    def decide(self, endpoint: str, body: bytes) -> Answer:
        """Answer a call. What goes wrong by our own fault refuses the object, and is told with its traceback.

        Args:
            endpoint: One of `admit.ENDPOINTS`.
            body: An AdmissionReview.
        """
        try:
            return admit.answer(endpoint, body, self.now())
        except Exception as error:  # noqa: BLE001  (the API server must get an answer with its uid, whatever happened)
            request, version = review.read(body)
            log: dict[str, object] = {
                "event": "failed",
                "endpoint": endpoint,
                "uid": request.uid,
                "error": f"{type(error).__name__}: {error}",
                "traceback": "".join(traceback.format_exception(error)),
            }
            return Answer(200, review.errored(request, version), "errored", (), log)

    def notes(self) -> tuple[str, ...]:
        """Return what is doubtful in the files in force, a line each."""
        return self._rule_notes + self._catalogue_notes + (() if self._live is None else tuple(self._live.notes()))

    def now(self) -> admit.World:
        """Return the world of this moment."""
        state = self._state
        return state.sooner if self._clock() < state.until else state.later

    def take_rules(self, files: Files) -> None:
        """Put new rules into force. For five minutes the ones before satisfy validation too.

        Raises:
            ConfigError: They cannot be used.
        """
        read = NO_RULES
        for name, content in files.items():
            read = rules.load(content, name)
        old = self._state.later
        self._rule_notes = read.notes
        later = old._replace(rules=read)
        if not self._has_rules:
            self._state = _State(later, later, -math.inf)
        elif read != old.rules:
            self._state = _State(later._replace(previous=old.rules), later, self._clock() + GRACE)
        self._has_rules = True

    def take_classes(self, files: Files) -> None:
        """Put new RDT classes into force.

        Raises:
            ConfigError: They cannot be used.
        """
        classes = None
        for name, content in files.items():
            classes = rdtclasses.load(content, name)
        self._know(self._state.later.catalogue._replace(rdt_classes=classes))

    def take_catalogue(self, files: Files) -> None:
        """Put new manifests of what the cluster has into force.

        Raises:
            ConfigError: They cannot be used.
        """
        faults: list[Fault] = []
        documents: list[Document] = []
        for name, content in files.items():
            try:
                documents += manifests.read(content, name)
            except ConfigError as error:
                faults += error.faults
        if faults:
            raise ConfigError(faults)
        built = inventory.build(documents, complete=self._complete)
        self._catalogue_notes = tuple(map(str, built.notes))
        self._know(built.catalogue._replace(rdt_classes=self._state.later.catalogue.rdt_classes))

    def _know(self, catalogue: Catalogue) -> None:
        # Always a new one: what was remembered of pods belongs to the catalogue before.
        catalogue = catalogue._replace(**self._known_live)
        sooner, later, until = self._state
        self._state = _State(sooner._replace(catalogue=catalogue), later._replace(catalogue=catalogue), until)


def shipped_rules() -> str:
    """Return the path of the rules that noisegate brings along."""
    return str(resources.files("noisegate").joinpath("mutations.yaml"))
