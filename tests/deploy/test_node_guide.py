"""The node guide names what there is: settings, reasons, rights."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from noisegate.enforcement import config
from noisegate.enforcement.kernel import containerd_config
from noisegate.enforcement.report import node

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs" / "node-guide.md").read_text()
OVERLAY: Final = ROOT / "deploy" / "overlays" / "enforcer"
TOLD_OTHERWISE: Final = {"rdtconfig.py", "containerd_config.py", "runc.py"}
"""Files whose refusals no pod ever meets: of a command, and of the preflight."""
_CAMEL: Final = re.compile(r"([A-Z][a-z0-9]*){2,}|[A-Z][a-z0-9]+")


def section(name: str) -> str:
    """Return the text below a heading, up to the next of its rank."""
    (found,) = re.findall(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def _settings(model: type[BaseModel], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        key = group + (field.alias or name)
        if isinstance(field.default, BaseModel):
            yield from _settings(type(field.default), f"{key}.")
        else:
            yield key, field.get_default(call_default_factory=True)


def _written(default: Any) -> str:
    match default:
        case bool():
            return str(default).lower()
        case tuple():
            return f"[{', '.join(default)}]"
        case float():
            return f"{default:g}"
        case "" | {}:
            return "none"
    return str(default)


def test_every_setting_is_named_with_its_default() -> None:
    """node.yaml's keys, each once, and nothing else."""
    told = [(row[0].strip("`"), row[1].strip("`")) for row in rows(section("Settings"))]
    assert sorted(told) == sorted((key, _written(default)) for key, default in _settings(config._File))


def _reasons() -> Iterator[str]:
    """Yield the reasons that the code gives to refusals and Events, wherever among the first arguments they stand."""
    makers = {"Refusal", "Meaning", "Outcome", "event"}
    for path in sorted((ROOT / "enforcement").rglob("*.py")):
        if path.name in TOLD_OTHERWISE:
            continue
        tree = ast.parse(path.read_text())
        refusals = [each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and _is_refusal(each)]
        begun = [call for each in refusals for call in ast.walk(each) if _called(call) == "__init__"]
        for call in [*(each for each in ast.walk(tree) if _called(each) in makers), *begun]:
            assert isinstance(call, ast.Call)
            for given in call.args[:2]:
                if isinstance(given, ast.Constant) and _CAMEL.fullmatch(str(given.value)):
                    yield str(given.value)


def _is_refusal(definition: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Refusal" for base in definition.bases)


def _called(found: ast.AST) -> str:
    if not isinstance(found, ast.Call):
        return ""
    match found.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
    return ""


def test_every_reason_is_named_once() -> None:
    """Those that the code gives, and no others."""
    told = [reason for row in rows(section("Reasons")) for reason in re.findall("`([A-Za-z0-9]+)`", row[0])]
    assert len(told) == len(set(told)) > 40
    assert set(told) ^ set(_reasons()) == set()


def test_the_reasons_of_the_condition_are_those_of_the_code() -> None:
    """Each with its status."""
    standings = (
        node.Standing(frozenset(node.KINDS)),
        node.Standing(frozenset({"disk"}), {"network": "why"}),
        node.Standing(frozenset(), dict.fromkeys(node.KINDS, "why")),
    )
    conditions = [*map(node.condition, standings), node.RESTARTING, node.STOPPED]
    told = [(row[0], row[1].strip("`")) for row in rows(section("What an operator sees"))]
    assert told == [(one.status, one.reason) for one in conditions]


def test_rights_are_told() -> None:
    """Each rule of the ClusterRole, each capability, each folder of the host, and the profiles."""
    text = section("What the DaemonSet may do, and why")
    (role,) = (one for one in yaml.safe_load_all((OVERLAY / "rbac.yaml").read_text()) if one["kind"] == "ClusterRole")
    for rule in role["rules"]:
        assert f"{', '.join(rule['resources'])}: {', '.join(rule['verbs'])}" in text
    pod = yaml.safe_load((OVERLAY / "daemonset.yaml").read_text())["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]
    words = [*security["capabilities"]["add"], security["seLinuxOptions"]["type"]]
    words += [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
    assert {word for word in words if f"`{word}`" not in text} == set()


def test_the_runtimes_rdt_file_is_found() -> None:
    """The drop-in that the guide shows says to containerd what it should."""
    (drop_in,) = re.findall(r"```toml\n(.*?)```", section("RDT"), re.DOTALL)
    found = containerd_config.facts(containerd_config.parse(textwrap.dedent(f"  {drop_in}").encode()))
    assert found.rdt_config_file == "/etc/containerd/rdt.yaml"
