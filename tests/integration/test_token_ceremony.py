"""Root keys move from files into PKCS#11 tokens, and a running agent's confined verifier follows what tokens signed."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.publishing.repository import newest_root
from lab.fleet import fleet_command
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import Agent
from tests.agent.car import Car
from tests.fleet.softhsm import Tokens

pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: make setup")
pytestmark = pytest.mark.integration


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path, pushes="trial_s = 1.0")


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """Three tokens with a root key each: two that OpenSC made, and one that `fleet keys root key` made."""
    made = Tokens.make(tmp_path / "hsm", monkeypatch)
    for number, kind in ((1, "EC:prime256v1"), (2, "EC:edwards25519")):
        made.token(f"root-{number}")
        made.key(f"root-{number}", "root", kind)
    made.token("root-3")
    return made


def root(car: Car, *words: object) -> None:
    """Run `fleet keys root` in this process, because a process of its own takes a second to start."""
    assert main(["keys", "root", *map(str, words), "--fleet", str(car.fleet.root)]) == 0


def uri(number: int) -> str:
    return f"pkcs11:token=root-{number};object=root"


def followed(agent: Agent, car: Car, port: int) -> None:
    """Publish, notify the agent, and wait until the release is in force past its trial."""
    published = fleet_command(car.fleet, "publish", "--broker", f"localhost:{port}")
    agent.until_status(
        lambda status: status["pushes"]["version"] == published["targets"] and not status["pushes"]["in_trial"],
        f"following release {published['targets']}",
    )


def test_a_running_agent_follows_roots_whose_keys_lie_in_tokens(car: Car, tokens: Tokens) -> None:
    folder = car.folder
    publics = [folder / f"root{number}.pub.pem" for number in (1, 2, 3)]
    for number, public in enumerate(publics, 1):
        generate = ["--generate"] if number == 3 else []
        root(car, "key", "--key", uri(number), "--out", public, *generate, *tokens.options)
    paper = folder / "ceremony.json"
    signatures = [folder / f"{number}.sig" for number in range(4)]

    broker = Broker(car.fleet, folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, folder / "receiver.log")
    with broker, receiver.running_now(), car.running() as agent:
        receiver.until_connected()
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        new = [f"--replace=root{number}={public}" for number, public in enumerate(publics, 1)]
        root(car, "start", *new, "--out", paper)
        for name, signature in zip(("root1", "root2"), signatures[:2], strict=True):
            root(car, "sign", paper, "--key", car.fleet.key(name), "--out", signature)
        for number, signature in zip((1, 3), signatures[2:], strict=True):
            root(car, "sign", paper, "--key", uri(number), "--out", signature, *tokens.options)
        root(car, "import", paper, *signatures)
        followed(agent, car, broker.fleet_port)

        root(car, "start", "--replace", "targets", "--out", paper)
        for number, signature in zip((2, 3), signatures[:2], strict=True):
            root(car, "sign", paper, "--key", uri(number), "--out", signature, *tokens.options)
        root(car, "import", paper, *signatures[:2])
        followed(agent, car, broker.fleet_port)
        assert agent.stop() == 0
        assert newest_root(car.fleet.metadata) == 3
        assert not agent.said("push_refused")


def test_a_foreign_token_and_a_pin_without_a_token_are_refused(
    car: Car, tokens: Tokens, capsys: pytest.CaptureFixture[str]
) -> None:
    paper, out = str(car.folder / "ceremony.json"), str(car.folder / "x.sig")
    root(car, "start", "--out", paper)
    assert main(["keys", "root", "sign", paper, "--key", uri(1), "--out", out, *tokens.options]) == 1
    assert "is not a root key of this fleet" in capsys.readouterr().err
    assert main(["keys", "root", "sign", paper, "--key", uri(1), "--out", out]) == 1
    assert "with --module FILE. For SoftHSM it is" in capsys.readouterr().err
    key = str(car.fleet.key("root1"))
    assert main(["keys", "root", "sign", paper, "--key", key, "--out", out, *tokens.options]) == 1
    assert "--module and --pin-file need a key in a token" in capsys.readouterr().err
    assert not Path(out).exists()


def test_without_the_optional_package_the_error_names_how_to_install_it(car: Car, tokens: Tokens) -> None:
    paper = car.folder / "ceremony.json"
    root(car, "start", "--out", paper)
    script = "import sys; sys.modules['pkcs11'] = None; from fleet.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = ["keys", "root", "sign", str(paper), "--key", uri(1), "--out", str(car.folder / "x"), *tokens.options]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install --require-hashes -r requirements/pkcs11.txt" in done.stderr
