"""mutations.yaml as the ConfigMap has it: which rules there are, since when, and what the conditions must be."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from noisegate.control.api import Api, Object
from noisegate.control.configurations import Configurations
from noisegate.control.events import Events
from noisegate.control.metrics import Metrics
from noisegate.service.faults import ConfigError
from noisegate.webhook import registration, rules
from noisegate.webhook.rules import Rules
from noisegate.webhook.world import shipped_rules

KEY: Final = "mutations.yaml"
"""In the ConfigMap; where that is there without it: the rules that noisegate ships."""


class Rulebook:
    """Keeps the conditions in step with the rules.

    Args:
        api: The API server.
        namespace: Of the ConfigMap.
        name: Of the ConfigMap.
        narrow_after: Seconds for which what the rules before waited for is still sent.
        events: Where it is told.
        metrics: Where it is counted.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        narrow_after: float,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._api: Final = api
        self._path: Final = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._shipped: Final = Path(shipped_rules()).read_text()
        self._name: Final = name
        self._about: Final[Object] = {"apiVersion": "v1", "kind": "ConfigMap", "name": name}
        self._narrow_after: Final = narrow_after
        self._events: Final = events
        self._metrics: Final = metrics
        self._clock: Final = clock
        self._text: str | None = None
        self._rules: Rules | None = None
        self._since = 0.0
        self._refused = ""

    async def look(self, configurations: Configurations) -> list[str]:
        """Read the rules and adjust the conditions; return what is wrong, a sentence each.

        Raises:
            ApiError: The API server does not answer, refuses, or somebody was faster (409): look again.
        """
        value = await self._api.get(self._path)
        if value is None:
            # What replicas have mounted stays when its ConfigMap is deleted.
            wrong = [f"there is no ConfigMap {self._name}; the rules before stay"]
        else:
            text = (value.get("data") or {}).get(KEY)
            await self._take(self._shipped if text is None else str(text))
            wrong = [f"the newest rules are refused: {self._refused}"] if self._refused else []
        if self._rules is None:
            return wrong
        narrow = self._clock() - self._since >= self._narrow_after
        changed = await configurations.write_conditions(registration.wanted(self._rules), widen=not narrow)
        if changed:
            reason = "ConditionsNarrowed" if narrow else "ConditionsWidened"
            note = f"matchConditions of {', '.join(changed)} were brought in step with {KEY}"
            await self._events.tell(reason, note, self._about)
        return [*wrong, *registration.doubts(self._rules)]

    async def _take(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        try:
            read = rules.load(text, KEY)
        except ConfigError as error:
            self._refused = "; ".join(str(fault) for fault in error.faults[:5])
            self._metrics.refused.set(1)
            note = f"{KEY} cannot be used, the rules before stay: {self._refused}"
            await self._events.tell("RulesRefused", note, self._about, warning=True)
            return
        first = self._rules is None
        if read != self._rules:
            self._rules, self._since = read, self._clock()
            if not first:
                names = ", ".join(rule.name for rule in read.rules) or "none"
                await self._events.tell("RulesChanged", f"rules now: {names}", self._about)
        self._refused = ""
        self._metrics.refused.set(0)
