"""One turn of the controller: what it does, what it tells and what it counts when parts of it fail."""

from datetime import timedelta
from typing import Any, Final

import pytest
from heldapi import HeldApi

from noisegate.certs.names import read_names
from noisegate.certs.succession import Settings
from noisegate.cluster.connection import ApiError
from noisegate.control.configurations import PATHS
from noisegate.control.controller import Config, _Controller
from noisegate.service.log import Log
from noisegate.webhook import registration, rules

CONFIG: Final = "/api/v1/namespaces/noisegate-system/configmaps/noisegate-config"
SECRETS: Final = "/api/v1/namespaces/noisegate-system/secrets"
GOLD: Final = "rules: [{name: gold, when: {labels: {tier: gold}}}]"
SILVER: Final = "rules: [{name: silver, when: {labels: {tier: silver}}}]"


class Lab:
    """A controller and its API server."""

    def __init__(self, **config: Any) -> None:
        self.api = HeldApi()
        for value in registration.configurations(rules.load(GOLD, "m"), registration.Service()):
            self.api.put(PATHS[value["kind"]], value)
        self.api.put(CONFIG, {"data": {"mutations.yaml": GOLD}})
        settings = Settings(read_names(["noisegate-webhook.noisegate-system.svc"]), timedelta(90), timedelta(900))
        given = Config(narrow_after=0.0, **config)
        self.controller = _Controller(given, self.api, settings, Log(level="error"))

    def number(self, name: str) -> float | None:
        """Return a metric."""
        return self.controller.metrics.registry.get_sample_value(f"noisegate_controller_{name}")

    @property
    def failed(self) -> float | None:
        """Looks that failed."""
        return self.controller.metrics.registry.get_sample_value(
            "noisegate_controller_looks_total", {"result": "failed"}
        )

    async def turn(self) -> None:
        """Look once."""
        await self.controller._turn()


@pytest.fixture(name="lab")
async def _lab() -> Lab:
    return Lab()


async def test_conditions_are_kept_though_certificates_cannot_be(lab: Lab) -> None:
    """And what failed is told, once both were tried."""
    await lab.turn()
    assert (lab.controller.reasons, lab.failed) == ([], 0)
    lab.api.put(CONFIG, {"data": {"mutations.yaml": SILVER}})
    lab.api.failing = lambda _method, path: ApiError(403, "secrets is forbidden") if SECRETS in path else None
    await lab.turn()
    assert lab.controller.reasons[0].startswith("secrets is forbidden (403); bind noisegate-controller")
    assert '"silver"' in str(lab.api.objects[PATHS[registration.MUTATING]]["webhooks"][0]["matchConditions"])
    assert (lab.number("leader"), lab.failed) == (1, 1)


async def test_who_cannot_renew_the_lease_leads_no_more(lab: Lab) -> None:
    """In its metrics too; nobody's look failed then but the leader's first."""
    await lab.turn()
    assert lab.number("leader") == 1
    lab.api.failing = lambda _method, _path: ApiError(0, "the API server does not answer")
    for _ in range(3):
        await lab.turn()
    assert lab.controller.reasons == ["the API server does not answer"]
    assert (lab.number("leader"), lab.failed) == (0, 1)
    lab.api.failing = lambda _method, _path: None
    await lab.turn()
    assert (lab.number("leader"), lab.controller.reasons) == (1, [])


@pytest.mark.parametrize(
    ("hangs", "leader", "told"),
    [
        ("leases", 0, "the API server is slow"),
        (SECRETS, 1, "the API server is slow, or replicas do not answer"),
    ],
)
async def test_a_look_that_takes_too_long(hangs: str, leader: int, told: str) -> None:
    """It is given up before the Lease runs out, and says what may be the cause."""
    lab = Lab(lease=0.3)
    await lab.turn()
    lab.api.hanging = lambda _method, path: hangs in path
    await lab.turn()
    assert lab.controller.reasons == [f"a look took longer than the 0.2 s that a leader has: {told}"]
    assert lab.number("leader") == leader


async def test_a_wish_that_is_none_is_told(lab: Lab) -> None:
    """With those that are."""
    await lab.turn()
    secret = f"{SECRETS}/noisegate-ca"
    there = lab.api.objects[secret]
    lab.api.put(secret, {**there, "metadata": {**there["metadata"], "annotations": {"noisegate.io/renew": "all"}}})
    await lab.turn()
    assert lab.controller.notes == [
        "annotation noisegate.io/renew of Secret noisegate-ca: all is not known; allowed: ca, leaf"
    ]


@pytest.mark.parametrize(("wish", "certificates"), [("leaf", 1), ("ca", 2)])
async def test_a_wish_is_granted_once(lab: Lab, wish: str, certificates: int) -> None:
    """The annotation goes with what it asked for; others stay."""
    await lab.turn()
    secret = f"{SECRETS}/noisegate-ca"
    before = lab.api.objects[f"{SECRETS}/noisegate-tls"]["data"]["tls.crt"]
    there = lab.api.objects[secret]
    annotations = {"noisegate.io/renew": wish, "other": "x"}
    lab.api.put(secret, {**there, "metadata": {**there["metadata"], "annotations": annotations}})
    await lab.turn()
    assert lab.api.objects[secret]["metadata"]["annotations"] == {"other": "x"}
    assert lab.number("trusted_authorities") == certificates
    # A new authority signs only when every API server knows it.
    assert (lab.api.objects[f"{SECRETS}/noisegate-tls"]["data"]["tls.crt"] != before) == (wish == "leaf")
