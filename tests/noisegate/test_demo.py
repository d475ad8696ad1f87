"""`noisegate demo`: a real server in a child process, called over mutual TLS."""

import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from noisegate.__main__ import main
from noisegate.certs.store import provide
from noisegate.cli import demo, offline, trial
from noisegate.service import manifests
from noisegate.webhook import review
from noisegate.webhook.settings import Settings
from noisegate.webhook.world import World

ROOT = Path(demo.__file__).parents[1] / "examples"


@pytest.fixture(name="temporary")
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder where temporary files go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(name="examples")
def _examples(tmp_path: Path) -> Path:
    """Return a folder with two of the examples, one refused and one admitted, and an object that is not judged."""
    folder = tmp_path / "examples"
    for name in ("kinds/cores.yaml", "bad/NG101-disk-block-size.yaml"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "service.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n")
    return folder


def test_the_examples_come_out_as_promised(temporary: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Everything is refused or given what its comment says, what happened is told, and nothing is left behind."""
    code = main(["demo"])

    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert "\nRefused (" in out
    assert "\nAdmitted, and given what they need (" in out
    assert "\nAdmitted as they are (" in out
    assert "; all as their comments promise\n" in out
    assert " calls over mutual TLS: median " in out
    assert "noisegate check your.yaml" in out
    assert list(temporary.iterdir()) == []


def test_every_object_is_told(temporary: Path, capfd: pytest.CaptureFixture[str], examples: Path) -> None:
    """Problems are told with code, place and mend; additions in plain words."""
    code = main(["demo", "--all", "--color", "never", "--examples", str(examples)])

    lines = capfd.readouterr().out.splitlines()
    assert code == 0
    first, calls = lines.pop(0), next(line for line in lines if " calls " in line)
    assert first.startswith("✓ admission server on https://127.0.0.1:")
    assert calls.startswith("3 calls over mutual TLS: median ")
    problem = next(line for line in lines if "NG101 " in line)
    assert problem.startswith("    NG101 [blockio.kubernetes.io/resources].data.limits.rbps: block size ")
    assert "      → write 50Mi/4k" in lines
    assert [line for line in lines if line.startswith(("✓", "✗", "Refused", "Admitted"))] == [
        "Refused (1)",
        "✗ Pod disk-block-size  bad/NG101-disk-block-size.yaml:3",
        "Admitted, and given what they need (1)",
        next(line for line in lines if line.startswith("✓ Pod cores  kinds/cores.yaml:")),
    ]
    assert (
        "    + annotation cmk.intel.com/resources-injected=true  + env CMK_NUM_CORES=2 in app  + toleration cmk (Exists)"
        in lines
    )


def test_a_broken_promise_is_told(temporary: Path, capfd: pytest.CaptureFixture[str], examples: Path) -> None:
    """What comes out otherwise than its comment says is named, and the exit code is 1."""
    path = examples / "kinds" / "cores.yaml"
    path.write_text(path.read_text().replace("CMK_NUM_CORES=2", "CMK_NUM_CORES=3"))

    code = main(["demo", "--examples", str(examples)])

    out = capfd.readouterr().out
    assert code == 1
    assert "Not as their comments promise (1)\n" in out
    assert "    it was not given env CMK_NUM_CORES=3 in app\n    it was given env CMK_NUM_CORES=2 in app too\n" in out
    assert "; 1 NOT as promised\n" in out


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({"a.yaml": "a: b: c"}, "a.yaml:1:5: not YAML: ", id="unreadable"),
        pytest.param(
            {"a.yaml": "kind: Service"}, "there is nothing here that an admission server judges", id="nothing"
        ),
        pytest.param({"server.yaml": "policy: {disks: {}}"}, "the server did not start:\n", id="bad-settings"),
    ],
)
def test_what_cannot_be_shown_is_told(
    tmp_path: Path, temporary: Path, capfd: pytest.CaptureFixture[str], files: dict[str, str], told: str
) -> None:
    """Examples that cannot be read and servers that do not start are one clear text, and nothing is left behind."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)

    code = main(["demo", "--examples", str(folder)])

    out, err = capfd.readouterr()
    assert (code, out if "nothing" not in told else "") == (2, "")
    assert err.startswith("noisegate demo: ")
    assert told in err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_a_kept_server_answers_until_it_is_ended(temporary: Path, examples: Path, number: int) -> None:
    """With --keep the server goes on, the files named for curl are there, and a signal ends everything cleanly."""
    command = [sys.executable, "-m", "noisegate", "demo", "--keep", "--examples", str(examples)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT.parents[1]) as process:  # noqa: S603  (this very program)
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].endswith("until Ctrl-C"):
            lines.append(process.stdout.readline().decode().rstrip("\n"))
        curl = " ".join(line.strip(" \\") for line in lines if "curl --cacert" in line or "--data" in line).split()
        given = dict(pairwise(curl))
        secured = ssl.create_default_context(cafile=given["--cacert"])
        secured.load_cert_chain(given["--cert"], given["--key"])
        request = urllib.request.Request(  # noqa: S310  (the line that the demo printed)
            curl[-1],
            Path(given["--data"].removeprefix("@")).read_bytes(),
            {"Content-Type": "application/json", "Connection": "close"},
        )
        with urllib.request.urlopen(request, context=secured) as answer:  # noqa: S310
            response = json.loads(answer.read())["response"]
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()

    assert response["allowed"] in (True, False)
    assert (process.returncode, err) == (0, b"")
    assert list(temporary.iterdir()) == []


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trial.Server]:
    """Return a real server with the settings of the examples."""
    certs = tmp_path_factory.mktemp("certs")
    provide(certs, datetime.now(UTC), [trial.HOST], demo.CLIENT)
    settings = str(ROOT / "server.yaml")
    with trial.Servers(certs, demo.CLIENT, [settings]) as servers:
        yield servers.reach()[settings]


def test_what_check_says_the_real_server_says(server: trial.Server) -> None:
    """Over the wire there comes what `noisegate check` decides by: verdict, message, warnings and patch, byte for byte."""
    settings = Settings.load((ROOT / "server.yaml").read_bytes(), str(ROOT / "server.yaml"))
    world = World(settings, lambda: 0.0)
    world.load()

    seen = 0
    for example in demo.examples_of(ROOT):
        if offline.is_ours(example.document):
            verdict = offline.consider(example.document, "default", world.now())
            body = offline.body_of(example.document, verdict.document.namespace or "default", verdict.before)
            for endpoint in ("mutate", "validate"):
                served = server.ask(endpoint, body)
                assert served == review.as_json(world.decide(endpoint, body).body)["response"]
                if not verdict.allowed and not served["allowed"]:
                    assert served["status"]["message"] == review.message(verdict.problems)
                    seen += 1

    assert seen > 50


def test_a_refusal_before_the_decision_is_told(server: trial.Server) -> None:
    """An answer that is none of an admission server's is an error with the server's own words."""
    with pytest.raises(trial.TrialError, match=r"^/mutate answered 400: the body is no AdmissionReview: "):
        server.ask("mutate", b"{}")


def test_a_server_that_is_gone_is_told(tmp_path: Path) -> None:
    """Where nobody listens, that is what is said."""
    gone = trial.Server(1, 1, ssl.create_default_context())

    with pytest.raises(trial.TrialError, match=r"^the server cannot be reached: "):
        gone.check_ready()
    with pytest.raises(trial.TrialError, match=r"^no answer to /mutate: ConnectionRefusedError"):
        gone.ask("mutate", b"{}")


def test_a_server_that_is_not_ready_is_told() -> None:
    """What /readyz says is passed on."""

    class Draining(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Say what a server says that is about to go."""
            self.send_error(503, "draining")

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    with http.server.HTTPServer((trial.HOST, 0), Draining) as health:
        thread = threading.Thread(target=health.handle_request)
        thread.start()
        with pytest.raises(trial.TrialError, match=r"(?s)^the server is not ready: .*draining"):
            trial.Server(1, health.server_port, ssl.create_default_context()).check_ready()
        thread.join()


def test_servers_end_with_whoever_started_them(tmp_path: Path) -> None:
    """A server whose starter is killed sees its standard input end, and goes."""
    provide(tmp_path, datetime.now(UTC), [trial.HOST], demo.CLIENT)
    command = [
        sys.executable, "-m", "noisegate.cli.servers", "--certs", str(tmp_path), "--client", demo.CLIENT, "--", "",
    ]  # fmt: skip
    reading, writing = os.pipe()
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603  (this very program)
        os.close(reading)
        assert process.stdout is not None
        where = json.loads(process.stdout.readline())
        os.close(writing)
        code = process.wait(timeout=30)

    assert (where["settings"], code) == ("", 0)


def test_objects_are_named_by_their_file() -> None:
    """The files of the examples are named from their folder on, and configuration is no example."""
    sources = {example.document.source for example in demo.examples_of(ROOT)}

    assert "kinds/cores.yaml" in sources
    assert not {source for source in sources if Path(source).name in demo.CONFIGURATION}
    assert all(isinstance(example.document, manifests.Document) for example in demo.examples_of(ROOT))
