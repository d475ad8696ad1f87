"""`noisegate check`, over the real command line."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import builders
import pytest
import yaml

from noisegate.__main__ import main
from noisegate.isolation import asked
from noisegate.isolation.problems import Findings

BAD = builders.pod({"networkio.kubernetes.io/resources": '{"limits": {"ingress": "50Mbps"}}'})
CORES = builders.pod(containers=[builders.container(resources={"limits": {"cmk.intel.com/exclusive-cores": 2}})])
PLAIN = builders.pod()
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
NETWORK = {
    "apiVersion": "k8s.cni.cncf.io/v1",
    "kind": "NetworkAttachmentDefinition",
    "metadata": {"name": "fast", "annotations": {"k8s.v1.cni.cncf.io/resourceName": "intel.com/nic"}},
    "spec": {"config": '{"cniVersion": "0.3.1", "type": "sriov"}'},
}
ATTACHED = builders.pod({"k8s.v1.cni.cncf.io/networks": "fast"})
BAD_PATH = "metadata.annotations[networkio.kubernetes.io/resources].limits.ingress"


def _message_of(pod: dict[str, Any]) -> str:
    found = Findings()
    asked.read(pod["metadata"]["annotations"], found)
    return found.problems[0].message


BAD_MESSAGE = _message_of(BAD)


BAD_YAML = (
    "bad.yaml:1:5: not YAML: mapping values are not allowed in this context "
    '(a value that holds ": " needs quotation marks)'
)
Check = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="check")
def _check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `noisegate check` in a directory with files; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", **files: Any) -> tuple[int, str, str]:
        for name, content in files.items():
            text = content if isinstance(content, str) else yaml.safe_dump_all([content], sort_keys=False)
            path = tmp_path / (name.replace("__", "/") + ".yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(["check", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def results(out: str) -> list[dict[str, Any]]:
    """Return the results of JSON output."""
    found: list[dict[str, Any]] = json.loads(out)["results"]
    return found


def suite_of(out: str) -> ET.Element:
    """Return the suite of JUnit output."""
    return ET.fromstring(out)[0]  # noqa: S314  (our own output)


def test_a_good_pod_is_admitted(check: Check) -> None:
    """A pod that asks for nothing is admitted, and nothing more is said."""
    assert check("pod.yaml", pod=PLAIN) == (
        0,
        "✓ Pod default/web  pod.yaml:1\n\n1 object checked, all admitted\n",
        "",
    )


def test_a_bad_pod_is_refused(check: Check) -> None:
    """A problem is told with its line, path, value, what is allowed, and the mend."""
    code, out, err = check("pod.yaml", pod=BAD)

    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "✗ Pod default/web  pod.yaml:1",
        f"    NG006 pod.yaml:6 {BAD_PATH}",
        f"      {BAD_MESSAGE}",
        "      → write 50M",
        "",
        "1 object checked, 1 refused (1 problem)",
    ]


def test_additions_are_a_diff(check: Check) -> None:
    """What an admitted pod would be given is shown as a diff of its YAML, each change with its path."""
    code, out, _ = check("pod.yaml", "-n", "shop", pod=CORES)

    assert code == 0
    assert out.splitlines() == [
        "✓ Pod shop/web  pod.yaml:1",
        "    @@ metadata @@",
        "     name: web",
        "    +annotations:",
        "    +  cmk.intel.com/resources-injected: 'true'",
        "    @@ spec.containers[app] @@",
        "    +env:",
        "    +  - name: CMK_NUM_CORES",
        "    +    value: '2'",
        "    @@ spec @@",
        "    +tolerations:",
        "    +  - key: cmk",
        "    +    operator: Exists",
        "",
        "1 object checked, all admitted, 1 with additions",
    ]


def test_warnings_are_told(check: Check) -> None:
    """What is doubtful is told like a problem, and counted, and does not refuse."""
    code, out, _ = check("pod.yaml", pod=ATTACHED)

    lines = out.splitlines()
    assert code == 0
    assert lines[1] == "    warning NG461 pod.yaml:6 metadata.annotations[k8s.v1.cni.cncf.io/networks]"
    assert lines[-1] == "1 object checked, all admitted, 1 warning"


def test_what_has_no_place_is_told(check: Check) -> None:
    """A problem of the object as a whole has its line and no path."""
    _, out, _ = check("pod.yaml", pod={**PLAIN, "spec": []})

    assert out.splitlines()[1] == "    NG090 pod.yaml:1"


def test_standard_input_is_read_once(check: Check) -> None:
    """A second - names what was read already."""
    _, out, _ = check("-", "-", "-o", "json", stdin=json.dumps(PLAIN))

    assert len(results(out)) == 1


def test_what_no_server_could_read_is_unreadable(check: Check) -> None:
    """A review that the server would answer with 400 is an unreadable input, with its line."""
    pod = {**PLAIN, "metadata": {"name": "a", "labels": {"a": "X"}}}
    code, out, err = check("-", stdin=json.dumps(pod).replace("X", "\\ud800"))

    assert (code, out) == (2, "")
    assert err.startswith("noisegate check: <stdin>:1")


def test_json_is_exactly_the_contract_s(check: Check) -> None:
    """Every key of the JSON form is there, and no other."""
    code, out, _ = check("-", "-o", "json", stdin=json.dumps(BAD) + "\n" + json.dumps(CORES))

    assert code == 1
    assert json.loads(out) == {
        "results": [
            {
                "source": "<stdin>:1",
                "kind": "Pod",
                "namespace": "default",
                "name": "web",
                "allowed": False,
                "problems": [
                    {
                        "code": "NG006",
                        "path": BAD_PATH,
                        "value": "50Mbps",
                        "message": BAD_MESSAGE,
                        "hint": "write 50M",
                    }
                ],
                "warnings": [],
                "patch": [],
            },
            {
                "source": "<stdin>:2",
                "kind": "Pod",
                "namespace": "default",
                "name": "web",
                "allowed": True,
                "problems": [],
                "warnings": [],
                "patch": [
                    {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "CMK_NUM_CORES", "value": "2"}]},
                    {
                        "op": "add",
                        "path": "/metadata/annotations",
                        "value": {"cmk.intel.com/resources-injected": "true"},
                    },
                    {"op": "add", "path": "/spec/tolerations", "value": [{"key": "cmk", "operator": "Exists"}]},
                ],
            },
        ]
    }


def test_yaml_says_what_json_says(check: Check) -> None:
    """The YAML form holds the same values as the JSON form."""
    _, as_json, _ = check("a.yaml", "b.yaml", "-o", "json", a=BAD, b=CORES)
    _, as_yaml, _ = check("a.yaml", "b.yaml", "-o", "yaml")

    assert yaml.safe_load(as_yaml) == json.loads(as_json)


def test_junit_is_one_case_for_each_object(check: Check) -> None:
    """JUnit's XML counts the refused, names file and line, and carries problems and warnings."""
    pod = {**BAD, "metadata": {**BAD["metadata"], "generateName": 'a<"&', "name": None}}
    code, out, _ = check("a.yaml", "b.yaml", "c.yaml", "-o", "junit", a=pod, b=CORES, c=ATTACHED)

    suite = suite_of(out)
    assert code == 1
    assert suite.attrib == {"name": "noisegate check", "tests": "3", "failures": "1", "errors": "0", "skipped": "0"}
    assert [case.attrib for case in suite] == [
        {"classname": "a.yaml", "name": 'Pod default/a<"&', "file": "a.yaml", "line": "1"},
        {"classname": "b.yaml", "name": "Pod default/web", "file": "b.yaml", "line": "1"},
        {"classname": "c.yaml", "name": "Pod default/web", "file": "c.yaml", "line": "1"},
    ]
    failure = suite[0][0]
    assert (failure.attrib["type"], failure.text) == (
        "NG006",
        f"a.yaml:6: NG006 {BAD_PATH}: {BAD_MESSAGE} (write 50M)",
    )
    assert (suite[2][0].tag, (suite[2][0].text or "")[:6]) == ("system-out", "NG461 ")


def test_junit_holds_what_xml_cannot(check: Check) -> None:
    """A character that XML has no form for is written as its escape."""
    pod = json.dumps({**PLAIN, "metadata": {"name": "a\u0001b\nc"}})
    _, out, _ = check("-", "-o", "junit", stdin=pod)

    assert suite_of(out)[0].attrib["name"] == "Pod default/a\\u0001b\nc"


def test_github_annotates_lines(check: Check) -> None:
    """Problems are errors and warnings are warnings of a file's line, escaped as GitHub wants it."""
    code, out, _ = check("a,b%.yaml", "-o", "github", **{"a,b%": BAD, "c": ATTACHED})
    _, warned, _ = check("c.yaml", "-o", "github")
    _, nothing, _ = check("d.yaml", "-o", "github", d=PLAIN)

    assert code == 1
    assert out == (
        f"::error file=a%2Cb%25.yaml,line=6,title=NG006::Pod default/web: {BAD_PATH}: {BAD_MESSAGE} (write 50M)\n"
    )
    assert warned.startswith("::warning file=c.yaml,line=6,title=NG461::Pod default/web: ")
    assert nothing == ""


def test_directories_are_read_to_their_depth(check: Check) -> None:
    """A directory's manifests are read at any depth, others and hidden ones are not, and each file once."""
    code, out, _ = check("top", "top/a.yaml", "-o", "json", top__a=PLAIN, top__in__b=PLAIN, top__in__hidden=PLAIN)
    Path("top/in/hidden.yaml").rename("top/in/.hidden.yaml")
    Path("top/notes.txt").write_text("{")
    code, out, _ = check("top", "./top/a.yaml", "-o", "json")

    assert code == 0
    assert [result["source"] for result in results(out)] == ["top/a.yaml:1", "top/in/b.yaml:1"]


def test_lists_and_documents_are_taken_apart(check: Check) -> None:
    """Each document, and each element of a list, is an object with its own line."""
    text = (
        f"{json.dumps(PLAIN)}\n---\napiVersion: v1\nkind: List\nitems:\n- {json.dumps(BAD)}\n- {json.dumps(SERVICE)}\n"
    )
    code, out, _ = check("all.yaml", "-o", "json", all=text)

    assert code == 1
    assert [(result["source"], result["allowed"]) for result in results(out)] == [
        ("all.yaml:1", True),
        ("all.yaml:6", False),
    ]


def test_other_kinds_are_passed_by(check: Check) -> None:
    """Objects that the server does not judge are counted and no more."""
    assert check("s.yaml", s=SERVICE) == (0, "0 objects checked, 1 of other kinds passed by\n", "")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"])
def test_templates_are_checked(check: Check, kind: str) -> None:
    """The template of a workload is judged, with the path and line it has there, and not mutated."""
    code, out, _ = check("w.yaml", "-o", "json", w=builders.workload(kind, BAD))
    prefix = "spec.jobTemplate.spec.template." if kind == "CronJob" else "spec.template."

    (result,) = results(out)
    assert code == 1
    assert (result["kind"], result["patch"]) == (kind, [])
    assert [problem["path"] for problem in result["problems"]] == [prefix + BAD_PATH]


def test_networks_in_the_input_are_known(check: Check) -> None:
    """A NetworkAttachmentDefinition in the input is judged and looked up, whatever the order."""
    code, out, _ = check("pod.yaml", "nad.yaml", "-o", "json", pod=ATTACHED, nad=NETWORK)

    pod, network = results(out)
    assert code == 0
    assert (network["kind"], network["allowed"]) == ("NetworkAttachmentDefinition", True)
    assert {"op": "add", "path": "/spec/containers/0/resources", "value": {
        "limits": {"intel.com/nic": "1"}, "requests": {"intel.com/nic": "1"},
    }} in pod["patch"]  # fmt: skip


def test_a_catalogue_is_known_and_not_judged(check: Check) -> None:
    """What --catalog names is looked up; the namespace of -n is that of objects which name none."""
    code, out, _ = check("pod.yaml", "--catalog", "nad.yaml", "-n", "shop", "-o", "json", pod=ATTACHED, nad=NETWORK)
    other, refused, _ = check(
        "pod.yaml", "--catalog", "other.yaml", "-o", "json", other={**NETWORK, "metadata": {"name": "slow"}}
    )

    (result,) = results(out)
    assert (code, result["namespace"], result["warnings"]) == (0, "shop", [])
    assert (other, [problem["code"] for problem in results(refused)[0]["problems"]]) == (1, ["NG413"])


def test_a_network_that_is_none_is_refused(check: Check) -> None:
    """A NetworkAttachmentDefinition with a field of a wrong type is a problem of its own, not an unreadable input."""
    code, out, _ = check("nad.yaml", "-o", "json", nad={**NETWORK, "spec": {"config": {"type": "sriov"}}})

    assert code == 1
    assert [problem["code"] for problem in results(out)[0]["problems"]] == ["NG090"]


def test_a_claim_that_is_none_is_unreadable(check: Check) -> None:
    """An object that only tells of the cluster cannot be refused; where it cannot be read, the input cannot."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "a"},
        "spec": {"storageClassName": 1},
    }

    assert check("pvc.yaml", pvc=claim) == (
        2,
        "",
        "noisegate check: pvc.yaml:6: spec.storageClassName: 1: a text is needed\n",
    )


def test_rules_can_be_chosen(check: Check) -> None:
    """--mutations takes the place of the shipped rules; what is doubtful in it is a note."""
    rules = "mutations: {perPod: {spec: {serviceAccount: cmk}}}"
    code, out, err = check("pod.yaml", "--mutations", "rules.yaml", "-o", "json", pod=CORES, rules=rules)

    assert code == 0
    assert [operation["path"] for operation in results(out)[0]["patch"]] == [
        "/spec/containers/0/env",
        "/spec/serviceAccountName",
    ]
    assert err.startswith("noisegate check: note: ")
    assert "rules.yaml: mutations: gives a service account to asking pods of every namespace" in err


def test_a_server_s_settings_count(check: Check) -> None:
    """--config brings policy, catalogue and class file of a server; their paths begin at its folder."""
    config = "policy: {sriov: {missingNetwork: warn}, rdt: {classes: classes.yaml}}\ncatalogue: {files: [nets.yaml]}"
    pod = builders.pod({"k8s.v1.cni.cncf.io/networks": "none", "noisegate.io/rdt-class": "silver"})
    code, out, _ = check(
        "pod.yaml", "--config", "etc/server.yaml", "-o", "json", pod=pod, etc__server=config, etc__nets=NETWORK,
        etc__classes="partitions: {p: {l3Allocation: 100%, classes: {gold: {}}}}",
    )  # fmt: skip

    (result,) = results(out)
    assert code == 1
    assert [problem["code"] for problem in result["problems"]] == ["NG301"]
    assert [warning.partition(" ")[0] for warning in result["warnings"]] == ["NG462"]


def test_every_unreadable_input_is_named(check: Check) -> None:
    """All that cannot be read is told in one go, each with its place, and nothing else."""
    Path("empty").mkdir()
    code, out, err = check(
        "pod.yaml", "none.yaml", "empty", "bad.yaml", "--config", "no.yaml", "--catalog", "worse.yaml",
        pod=PLAIN, bad="a: b: c", worse="- 1",
    )  # fmt: skip

    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "noisegate check: none.yaml: there is no such file or folder",
        "noisegate check: empty: there are no manifests here; looked for: *.yaml, *.yml, *.json",
        f"noisegate check: {BAD_YAML}",
        "noisegate check: worse.yaml:1: this is no mapping; a Kubernetes object is a mapping with apiVersion, kind and metadata",
        "noisegate check: no.yaml: cannot be read: No such file or directory",
    ]


def test_bad_rules_are_told(check: Check) -> None:
    """A rule file that cannot be used stops the check."""
    code, out, err = check("pod.yaml", "--mutations", "rules.yaml", pod=PLAIN, rules="rulez: []")

    assert (code, out) == (2, "")
    assert "rules.yaml:1: rulez: unknown key; allowed: mutations, rules" in err


@pytest.mark.parametrize(
    ("pod", "patch"),
    [
        pytest.param({"containers": [builders.container(env=None, resources=builders.cores(1))]}, "1", id="null"),
        pytest.param(
            {"containers": [builders.container(resources={"limits": {"cmk.intel.com/exclusive-cores": 3}})]}, "3", id="int"
        ),
        pytest.param(
            {"containers": [builders.container(resources={"requests": None, "limits": {"cmk.intel.com/exclusive-cores": 2.0}})]},
            "2", id="float",
        ),
    ],
)  # fmt: skip
def test_the_api_server_s_own_part_is_done(check: Check, pod: dict[str, Any], patch: str) -> None:
    """Numbers for quantities, null fields and a limit without a request are what the API server makes of them."""
    code, out, _ = check("pod.yaml", "-o", "json", pod={**PLAIN, "spec": pod})

    assert code == 0
    assert results(out)[0]["patch"][0]["value"] == [{"name": "CMK_NUM_CORES", "value": patch}]


def test_what_is_no_pod_is_refused(check: Check) -> None:
    """A field of a wrong type is a problem, as the API server would see it."""
    code, out, _ = check("pod.yaml", "-o", "json", pod={**PLAIN, "metadata": {"name": "a", "annotations": {"a": True}}})

    assert code == 1
    assert [problem["code"] for problem in results(out)[0]["problems"]] == ["NG090"]


def test_names_cannot_steer_the_terminal(check: Check) -> None:
    """Control characters of a manifest are shown as escapes."""
    pod = builders.pod({"noisegate.io/\u001b[2J": "x"})
    _, out, _ = check("-", stdin=json.dumps(pod))

    assert "\x1b" not in out
    assert "noisegate.io/\\x1b[2J" in out


def test_colour_is_asked_for(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """No colour where no terminal is, unless asked for."""
    monkeypatch.setenv("NO_COLOR", "1")
    _, plain, _ = check("pod.yaml", pod=BAD)
    _, coloured, _ = check("pod.yaml", "--color", "always")

    assert "\x1b[" not in plain
    assert "\x1b[31;1mNG006\x1b[0m" in coloured


def test_no_files_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file the usage is told, and the exit code is 2."""
    with pytest.raises(SystemExit) as stopped:
        main(["check"])

    assert stopped.value.code == 2
    assert "the following arguments are required: FILE" in capsys.readouterr().err
