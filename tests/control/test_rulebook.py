"""Which rules the conditions follow: those of the ConfigMap, for as long as there is one."""

from typing import Final

import pytest
from heldapi import HeldApi

from noisegate.control.configurations import PATHS, Configurations
from noisegate.control.events import Events
from noisegate.control.metrics import Metrics
from noisegate.control.rulebook import Rulebook
from noisegate.service.log import Log
from noisegate.webhook import registration, rules

CONFIG: Final = "/api/v1/namespaces/n/configmaps/noisegate-config"
GOLD: Final = "rules: [{name: gold, when: {labels: {tier: gold}}}]"
GONE: Final = "there is no ConfigMap noisegate-config; the rules before stay"


class Lab:
    """A rulebook, what it reads and writes, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.api = HeldApi()
        metrics = Metrics()
        clock = lambda: self.now  # noqa: E731  (one line says it)
        events = Events(self.api, "n", "me", Log(level="error"), clock)
        self.rulebook = Rulebook(self.api, "n", "noisegate-config", 600.0, events, metrics, clock)
        self.configurations = Configurations(self.api, metrics)
        for value in registration.configurations(rules.load(GOLD, "m"), registration.Service()):
            self.api.put(PATHS[value["kind"]], value)

    async def look(self) -> list[str]:
        """Look once, long after everything else."""
        self.now += 1000.0
        assert await self.configurations.read() == []
        return await self.rulebook.look(self.configurations)

    @property
    def asks(self) -> str:
        """What the first entry waits for."""
        return str(self.api.objects[PATHS[registration.MUTATING]]["webhooks"][0]["matchConditions"])


@pytest.fixture(name="lab")
def _lab() -> Lab:
    return Lab()


async def test_a_deleted_config_map_takes_no_rule_away(lab: Lab) -> None:
    """Replicas keep what they have mounted; that it is gone is said until it is back."""
    lab.api.put(CONFIG, {"data": {"mutations.yaml": GOLD}})
    assert await lab.look() == []
    del lab.api.objects[CONFIG]
    assert await lab.look() == [GONE]
    assert await lab.look() == [GONE]
    assert '"gold"' in lab.asks
    lab.api.put(CONFIG, {"data": {"mutations.yaml": GOLD}})
    assert await lab.look() == []


async def test_who_starts_without_a_config_map_changes_nothing(lab: Lab) -> None:
    """It cannot know which rules the replicas have."""
    assert await lab.look() == [GONE]
    assert '"gold"' in lab.asks


async def test_a_config_map_without_rules_means_the_shipped_ones(lab: Lab) -> None:
    """As the admission server reads it."""
    lab.api.put(CONFIG, {"data": {"server.yaml": ""}})
    assert await lab.look() == []
    # What the rules before waited for is sent for a while.
    assert await lab.look() == []
    assert '"gold"' not in lab.asks
