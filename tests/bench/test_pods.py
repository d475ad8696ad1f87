"""The requests of the benchmark are what they say they are."""

from typing import Any

import msgspec
import pytest

from bench import cases, pods, stages
from bench.cases import Check
from bench.load import WrongAnswerError
from bench.pods import Asking, Size
from noisegate.isolation import keys
from noisegate.webhook import admit
from noisegate.webhook.admit import World

SIZES: list[Size] = ["7 KB", "21 KB"]
ASKING: list[Asking] = ["all", "nothing", "wrongly"]
ASKED = (keys.DISK, keys.NETWORK, keys.RDT_RUNTIME_CONTAINER + "app", keys.NETWORKS)


@pytest.fixture(scope="module")
def world() -> World:
    """What the server under measurement decides with."""
    return stages.world()


def annotations_of(review: dict[str, Any]) -> dict[str, str]:
    """Return the annotations of a review's pod."""
    found: dict[str, str] = review["request"]["object"]["metadata"]["annotations"]
    return found


@pytest.mark.parametrize("seed", [0, 7, 255, 2999])
@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("size", SIZES)
def test_size(size: Size, asking: Asking, seed: int) -> None:
    """A request is as long as its name says, within 5 %."""
    assert len(pods.encode(pods.create(size, asking, seed))) == pytest.approx(pods.BYTES[size], rel=0.05)


@pytest.mark.parametrize("size", SIZES)
def test_asks_for_all_five_kinds(size: Size) -> None:
    """A pod that asks for all asks for disk, network, an RDT class, SR-IOV networks and exclusive cores."""
    review = pods.create(size, "all", 5)
    pod = review["request"]["object"]
    assert annotations_of(review).keys() >= set(ASKED)
    assert pod["spec"]["containers"][0]["resources"]["limits"][keys.CORES] == "6"


@pytest.mark.parametrize("size", SIZES)
def test_asks_for_nothing(size: Size) -> None:
    """A pod that asks for nothing carries no key of ours."""
    review = pods.create(size, "nothing", 5)
    assert [key for key in annotations_of(review) if keys.is_ours(key)] == []
    assert keys.CORES.encode() not in pods.encode(review)


@pytest.mark.parametrize("size", SIZES)
def test_same_seed_same_request(size: Size) -> None:
    """Two runs measure the same bytes."""
    assert pods.create(size, "all", 3) == pods.create(size, "all", 3)


def test_replicas_share_their_texts() -> None:
    """Replicas of one workload differ in the request's uid and nowhere else; workloads differ in what they ask for."""
    first, second, third = (msgspec.json.decode(body) for body in pods.replicas("7 KB", "all", 2, 3))
    assert first["request"]["object"] == third["request"]["object"]
    assert first["request"]["uid"] != third["request"]["uid"]
    assert annotations_of(first)[keys.DISK] != annotations_of(second)[keys.DISK]


@pytest.mark.parametrize("key", [keys.DISK, keys.NETWORK, keys.NETWORKS])
@pytest.mark.parametrize("size", SIZES)
def test_different_pods_share_no_text(size: Size, key: str) -> None:
    """Where all pods are different, no text of ours comes twice, so that remembering texts does not help."""
    texts = [annotations_of(pods.create(size, "all", seed))[key] for seed in range(1200)]
    assert len(set(texts)) == len(texts)


RIGHT: dict[Asking, tuple[str, Check]] = {
    "all": ("mutate", cases.check_patched),
    "nothing": ("mutate", cases.check_untouched),
    "wrongly": ("validate", cases.check_denied),
}


@pytest.mark.parametrize("seed", [0, 1, 8, 1000])
@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("size", SIZES)
def test_right_answer(world: World, size: Size, asking: Asking, seed: int) -> None:
    """The pod that asks rightly is patched for every kind, the plain one let pass, the wrong one denied for every kind."""
    endpoint, check = RIGHT[asking]
    body = pods.encode(pods.create(size, asking, seed))
    answer = admit.answer(endpoint, body, world)
    assert answer.status == 200
    cases.check_answer(body, answer.body, check)


@pytest.mark.parametrize("size", SIZES)
def test_mutated_pod_is_valid(world: World, size: Size) -> None:
    """The pod that the validate case sends, with everything injected, needs nothing more."""
    review = pods.create(size, "all", 3)
    answer = admit.answer("mutate", pods.encode(review), world)
    final = pods.encode(cases.patched_review(review, msgspec.json.decode(answer.body)))
    cases.check_answer(final, admit.answer("validate", final, world).body, cases.check_untouched)


def test_wrong_answer_is_found(world: World) -> None:
    """An answer that lacks what the pod needs fails the benchmark."""
    body = pods.encode(pods.create("7 KB", "all", 1))
    plain = pods.encode(pods.create("7 KB", "nothing", 1))
    uid = msgspec.json.decode(body)["request"]["uid"]
    review = msgspec.json.decode(plain)
    review["request"]["uid"] = uid
    answer = admit.answer("mutate", pods.encode(review), world)
    with pytest.raises(WrongAnswerError, match="patchType"):
        cases.check_answer(body, answer.body, cases.check_patched)


@pytest.mark.parametrize("kind", ["disk", "network", "rdt", "sriov", "cores"])
def test_only_one_kind(world: World, kind: str) -> None:
    """The pods by which the cost of one kind is told ask for that kind and are right."""
    body = pods.encode(stages.only(pods.create("7 KB", "all", 1), kind))
    answer = admit.answer("mutate", body, world)
    assert answer.codes == ()
    assert answer.result == ("allowed" if kind == "network" else "patched")
