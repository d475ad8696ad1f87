"""What decisions are made in at the moment: rules, catalogue and classes, each as its files last made sense.

    files on disk -> watch -> World.take_... -> one new admit.World, swapped in whole

What cannot be used raises, and nothing is changed; `watch` keeps the reason for readiness, metrics and log.
"""

import math
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Final, NamedTuple

from noisegate.isolation.catalogue import Catalogue
from noisegate.webhook import admit, inventory, manifests, rdtclasses, rules
from noisegate.webhook.faults import ConfigError, Fault
from noisegate.webhook.manifests import Document
from noisegate.webhook.rules import NO_RULES
from noisegate.webhook.settings import Settings
from noisegate.webhook.watch import UnreadableError, Watch

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
    """Holds the world, and takes new files into it. Read from any thread; written from one at a time.

    Args:
        settings: What is allowed, and of which kinds the catalogue is complete.
        clock: Seconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        first = admit.World(policy=settings.policy, excluded=settings.policy.exclude_namespaces)
        self._state = _State(first, first, -math.inf)
        self._complete = settings.catalogue.complete
        self._clock = clock
        self._has_rules = False
        self.rule_notes: tuple[str, ...] = ()
        """What is doubtful in the rules in force, a line each."""
        self.catalogue_notes: tuple[str, ...] = ()
        """What is doubtful in the catalogue in force, a line each."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is doubtful in the files in force, a line each."""
        return self.rule_notes + self.catalogue_notes

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
        self.rule_notes = read.notes
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
        self.catalogue_notes = tuple(map(str, built.notes))
        self._know(built.catalogue._replace(rdt_classes=self._state.later.catalogue.rdt_classes))

    def _know(self, catalogue: Catalogue) -> None:
        sooner, later, until = self._state
        self._state = _State(sooner._replace(catalogue=catalogue), later._replace(catalogue=catalogue), until)


def shipped_rules() -> str:
    """Return the path of the rules that noisegate brings along."""
    return str(resources.files("noisegate").joinpath("mutations.yaml"))


def start(settings: Settings, clock: Callable[[], float]) -> tuple[World, tuple[Watch, ...]]:
    """Return the world of the files as they are now, and what follows them.

    Raises:
        ConfigError: Everything that cannot be read or used, of all files.
    """
    world = World(settings, clock)
    classes = settings.policy.rdt.classes
    watches = (
        Watch("mutations", [settings.server.mutations or shipped_rules()], world.take_rules),
        Watch("rdt-classes", [classes] if classes else [], world.take_classes),
        Watch("catalogue", settings.catalogue.files, world.take_catalogue),
    )
    faults: list[Fault] = []
    for watch in watches:
        try:
            watch.load()
        except ConfigError as error:
            faults += error.faults
        except UnreadableError as error:
            path, _, reason = str(error).rpartition(": ")
            faults.append(Fault(path or watch.what, 0, 0, "", f"cannot be read: {reason}"))
    if faults:
        raise ConfigError(faults)
    return world, tuple(watch for watch in watches if watch.sources)
