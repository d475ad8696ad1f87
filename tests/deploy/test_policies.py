"""deploy/base/policies.yaml speaks of the same keys as the code."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from noisegate.isolation import keys

POLICIES: Final = {
    value["metadata"]["name"]: value["spec"]
    for value in yaml.safe_load_all((Path(__file__).parents[2] / "deploy" / "base" / "policies.yaml").read_text())
    if value["kind"] == "ValidatingAdmissionPolicy"
}


@pytest.mark.parametrize("name", ["noisegate-status", "noisegate-binding"])
def test_the_keys_are_those_of_the_code(name: str) -> None:
    """Those compared as a whole and those compared by how they begin, in every expression."""
    spec: dict[str, Any] = POLICIES[name]
    expressions = {variable["name"]: variable["expression"] for variable in spec["variables"]}
    exact = expressions.pop("exact")
    assert sorted(re.findall('"([^"]+)"', exact)) == sorted(keys._EXACT)
    by_prefix = [re.findall(r'k\.startsWith\("([^"]+)"\)', text) for text in expressions.values()]
    found = [prefix for prefixes in by_prefix for prefix in prefixes]
    assert sorted(set(found)) == sorted(keys._PREFIXES)
    assert {found.count(prefix) for prefix in keys._PREFIXES} == {2 if name == "noisegate-status" else 1}


def test_the_mode_is_guarded_on_every_way_to_a_namespace() -> None:
    """Its status and its finalizers are ways to write its labels."""
    (rule,) = POLICIES["noisegate-mode"]["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["namespaces", "namespaces/status", "namespaces/finalize"]
