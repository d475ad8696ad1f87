"""What decisions are made in: last good kept, previous rules expire, one step for each change."""

from pathlib import Path

import builders
import pytest

from noisegate.isolation.catalogue import Claim, Network, RdtClass
from noisegate.isolation.policy import Policy
from noisegate.service.faults import ConfigError
from noisegate.webhook import admit, review, rules, world
from noisegate.webhook.review import Answer
from noisegate.webhook.settings import Settings

RULES = b"rules: [{name: one, when: {labels: {a: b}}, perPod: {metadata: {labels: {c: d}}}}]"
OTHER_RULES = RULES.replace(b"one", b"two")
NETWORK = b"""
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: fast, namespace: shop}
"""
CLASSES = b"partitions: {all: {l3Allocation: 100%, classes: {gold: {}}}}"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.seconds


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="held")
def _held(clock: Clock) -> world.World:
    held = world.World(Settings(), clock)
    held.take_rules({"mutations.yaml": RULES})
    return held


def test_settings_are_in_the_world(clock: Clock) -> None:
    """Policy and excluded namespaces are those of the settings."""
    policy = Policy(excludeNamespaces=("kube-*",))

    now = world.World(Settings(policy=policy), clock).now()

    assert (now.policy, now.policy.exclude_namespaces) == (policy, ("kube-*",))


def test_first_rules_have_no_previous_ones(held: world.World) -> None:
    """What is read first replaces nothing that a pod could have been mutated with."""
    now = held.now()

    assert (now.rules, now.previous) == (rules.load(RULES, "mutations.yaml"), None)


def test_previous_rules_hold_for_five_minutes(held: world.World, clock: Clock) -> None:
    """After a change the rules before it satisfy validation for exactly 300 seconds."""
    held.take_rules({"mutations.yaml": OTHER_RULES})
    clock.seconds += 299.9
    during = held.now()
    clock.seconds += 0.1
    after = held.now()

    new = rules.load(OTHER_RULES, "mutations.yaml")
    assert (during.rules, during.previous) == (new, rules.load(RULES, "mutations.yaml"))
    assert (after.rules, after.previous) == (new, None)


def test_rules_that_say_the_same_change_nothing(held: world.World, clock: Clock) -> None:
    """A comment in the file neither prolongs nor begins the time of previous rules."""
    held.take_rules({"mutations.yaml": OTHER_RULES})
    clock.seconds += 200
    held.take_rules({"mutations.yaml": OTHER_RULES + b"\n# comment"})
    previous = held.now().previous
    clock.seconds += 100

    assert previous == rules.load(RULES, "mutations.yaml")
    assert held.now().previous is None


def test_empty_first_rules_are_rules(clock: Clock) -> None:
    """A pod that was mutated while there were no rules passes for five minutes after the first ones come."""
    held = world.World(Settings(), clock)
    held.take_rules({"mutations.yaml": b""})
    held.take_rules({"mutations.yaml": RULES})

    assert held.now().previous == rules.NO_RULES


def test_no_files_are_no_rules(clock: Clock) -> None:
    """Without a file there are no rules."""
    held = world.World(Settings(), clock)
    held.take_rules({})

    assert held.now().rules == rules.NO_RULES


def test_bad_rules_change_nothing(held: world.World) -> None:
    """A file that cannot be used leaves the world as it is, and says what is wrong."""
    before = held.now()

    with pytest.raises(ConfigError, match=r"^mutations\.yaml:1: rulez: unknown key; allowed: mutations, rules"):
        held.take_rules({"mutations.yaml": b"rulez: []"})

    assert held.now() is before


def test_catalogue_and_classes_keep_each_other(held: world.World) -> None:
    """A new catalogue leaves the RDT classes, new RDT classes leave the catalogue."""
    held.take_classes({"classes.yaml": CLASSES})
    held.take_catalogue({"networks.yaml": NETWORK})
    first = held.now().catalogue
    held.take_classes({})

    assert first.networks == {"shop/fast": Network({}, "")}
    assert first.rdt_classes == {"gold": RdtClass()}
    assert held.now().catalogue == first._replace(rdt_classes=None)


def test_knowledge_changes_while_previous_rules_hold(held: world.World, clock: Clock) -> None:
    """A new catalogue is in force at once, before and after the previous rules expire."""
    held.take_rules({"mutations.yaml": OTHER_RULES})
    held.take_catalogue({"networks.yaml": NETWORK})
    during = held.now()
    clock.seconds += world.GRACE

    assert during.previous is not None
    assert during.catalogue == held.now().catalogue
    assert during.catalogue.networks is not None


def test_bad_catalogue_names_every_fault(held: world.World) -> None:
    """All files of the catalogue are read before it is refused, and the old one stays."""
    held.take_catalogue({"networks.yaml": NETWORK})
    before = held.now()

    with pytest.raises(ConfigError) as caught:
        held.take_catalogue({"a.yaml": b"- 1", "b.yaml": b"{"})

    assert [fault.file for fault in caught.value.faults] == ["a.yaml", "b.yaml"]
    assert held.now() is before


def test_completeness_is_the_settings(clock: Clock) -> None:
    """A kind that the settings call complete is known without an object."""
    settings = Settings.load(b"catalogue: {complete: [claims]}", "server.yaml")
    held = world.World(settings, clock)
    held.take_catalogue({})

    assert held.now().catalogue.claims == {}
    assert held.now().catalogue.networks is None


def test_notes_are_those_in_force(held: world.World) -> None:
    """What is doubtful in rules and catalogue is told, and no longer once it is gone."""
    claim = b"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec: {storageClassName: %s}\n"
    held.take_rules({"m.yaml": b"mutations: {perPod: {spec: {serviceAccount: cmk}}}"})
    held.take_catalogue({"c.yaml": claim % b"x" + b"---\n" + claim % b"z"})
    notes = held.notes()
    held.take_rules({"m.yaml": RULES})
    held.take_catalogue({"c.yaml": claim % b"x"})

    assert [note.partition(":")[0] for note in notes] == ["m.yaml", "c.yaml"]
    assert held.notes() == ()
    assert held.now().catalogue.claims == {"default/a": Claim("x")}


def test_load_reads_every_file(tmp_path: Path, clock: Clock) -> None:
    """The world begins with what the files say, and each of them is followed."""
    (tmp_path / "rules.yaml").write_bytes(RULES)
    (tmp_path / "classes.yaml").write_bytes(CLASSES)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "networks.yaml").write_bytes(NETWORK)
    text = "{server: {mutations: rules.yaml}, policy: {rdt: {classes: classes.yaml}}, catalogue: {files: [cluster]}}"
    settings = Settings.load(text, str(tmp_path / "server.yaml"))

    held = world.World(settings, clock)
    held.load()
    watches = held.watches

    assert [watch.what for watch in watches] == ["mutations", "rdt-classes", "catalogue"]
    assert [rule.name for rule in held.now().rules.rules] == ["one"]
    assert held.now().catalogue.rdt_classes == {"gold": RdtClass()}
    assert held.now().catalogue.networks == {"shop/fast": Network({}, "")}

    (tmp_path / "rules.yaml").write_bytes(b"nonsense: 1")
    assert watches[0].check().result == "refused"
    assert [rule.name for rule in held.now().rules.rules] == ["one"]
    (tmp_path / "rules.yaml").write_bytes(OTHER_RULES)
    assert watches[0].check().result == "reloaded"
    assert [rule.name for rule in held.now().rules.rules] == ["two"]


def test_load_without_files_has_the_shipped_rules(clock: Clock) -> None:
    """By default there are the rules that noisegate brings along, and nothing is known of the cluster."""
    held = world.World(Settings(), clock)
    held.load()

    assert [watch.what for watch in held.watches] == ["mutations"]
    assert [rule.name for rule in held.now().rules.rules] == ["cmk", "cmk-isolate", "sriov-dpdk"]
    assert held.now().catalogue == (None, None, None, None)


def test_load_tells_all_that_is_wrong(tmp_path: Path, clock: Clock) -> None:
    """A start fails with everything that is wrong with any file."""
    (tmp_path / "rules.yaml").write_bytes(b"rulez: []")
    text = "{server: {mutations: rules.yaml}, policy: {rdt: {classes: none.yaml}}, catalogue: {files: [nowhere]}}"
    settings = Settings.load(text, str(tmp_path / "server.yaml"))

    with pytest.raises(ConfigError) as caught:
        world.World(settings, clock).load()

    assert str(caught.value).replace(str(tmp_path), "") == (
        "/rules.yaml:1: rulez: unknown key; allowed: mutations, rules (write rules)\n"
        "/none.yaml: cannot be read: No such file or directory\n"
        "/nowhere: cannot be read: No such file or directory"
    )


def test_calls_are_decided_in_the_world_of_the_moment(held: world.World) -> None:
    """A call is answered as `admit` answers it, by the rules in force."""
    pod = builders.pod(labels={"a": "b"})
    before = held.decide("mutate", builders.review(pod))
    held.take_rules({"mutations.yaml": b""})
    after = held.decide("mutate", builders.review(pod))

    assert (before.result, after.result) == ("patched", "allowed")


def test_our_own_fault_is_an_answer(held: world.World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in a decision, the API server gets a refusal with its uid, and the log the traceback."""

    # A decision that fails is a mistake nobody knows of yet; here is one.
    def mistaken(*_: object) -> Answer:
        raise ZeroDivisionError("one too few")

    monkeypatch.setattr(admit, "answer", mistaken)

    answer = held.decide("mutate", builders.review(builders.pod()))

    response = review.as_json(answer.body)["response"]
    assert (answer.status, answer.result, answer.codes) == (200, "errored", ())
    assert (response["uid"], response["allowed"], response["status"]["code"]) == (builders.UID, False, 500)
    assert answer.log is not None
    log = dict(answer.log)
    assert "in mistaken" in str(log.pop("traceback"))
    assert log == {
        "event": "failed",
        "endpoint": "mutate",
        "uid": builders.UID,
        "error": "ZeroDivisionError: one too few",
    }
