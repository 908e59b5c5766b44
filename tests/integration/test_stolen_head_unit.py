"""The flash of a running head unit holds sealed batches, and nothing that opens them.

The test searches every file of the agent's state folder for names of signals and values, for bytes of the bodies that
were sealed, for content that decompresses, and for private keys.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.errors import Untrusted
from agent.formats.up.decode import decode_batch
from agent.formats.up.seal import read_header, unseal
from agent.telemetry.spool import schema
from can_dbc.database import load
from fleet.state.keys import read_p256, read_recipient
from tests.agent.car import DATABASES, Car, campaign

pytestmark = pytest.mark.integration

ZSTD = b"\x28\xb5\x2f\xfd"
ALIGNED = 16  # bytes; keys begin at multiples of it
WINDOW = 24  # bytes of plaintext; so many do not occur by chance
PLANS = "plans"  # the folder of compiled databases has the names of all signals, but no sample


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the content of every file.  A file that is removed meanwhile is left out."""
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                found[path] = path.read_bytes()
        except FileNotFoundError:
            continue
    return found


def names() -> list[bytes]:
    """Return the names of messages, signals and values of the demonstration vehicle."""
    found: set[str] = set()
    for file in DATABASES.glob("demo_*.dbc"):
        for message in load(file).messages:
            found.add(message.name)
            for signal in message.signals:
                found.add(signal.name)
                found |= {str(text) for text in (signal.conversion.choices or {}).values()}
    tables = Path(schema.__file__).read_text()  # our own words may also be names of values
    return [name.encode() for name in found if len(name) > 5 and name not in tables]


def unpacked(content: bytes) -> Iterator[bytes]:
    """Yield the content of every zstd frame in `content`, wherever it begins."""
    for match in re.finditer(re.escape(ZSTD), content):
        try:
            yield zstandard.ZstdDecompressor().decompressobj().decompress(content[match.start() :])
        except zstandard.ZstdError:
            continue


def telling(content: bytes, words: list[bytes]) -> set[bytes]:
    """Return the `words` that occur in `content`, plain or compressed."""
    return {word for text in (content, *unpacked(content)) for word in words if word in text}


def opens(content: bytes, public: bytes) -> bool:
    """Return whether `content` has the X25519 private key of `public`, raw, in base64 or in hexadecimal.

    No batch can be opened without this key, which the default suite needs beside the key of ML-KEM.
    """
    texts = [base64.b64decode(text + b"=" * (-len(text) % 4)) for text in re.findall(rb"[A-Za-z0-9+/]{43,}", content)]
    texts += [bytes.fromhex(text.decode()) for text in re.findall(rb"(?:[0-9a-f]{2}){32,}", content)]
    return any(
        X25519PrivateKey.from_private_bytes(text[at : at + 32]).public_key().public_bytes_raw() == public
        for text in (content, *texts)
        for at in range(0, len(text) - 31, ALIGNED)
    )


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path, telemetry="increment_s = 0.5\ncheckpoint_s = 0.5")


def test_nothing_on_the_flash_of_a_running_agent_tells_what_it_collects_or_opens_it(car: Car) -> None:
    (car.campaigns / "everything.json").write_bytes(campaign(period_ms=2_000))
    state = car.folder / "state"
    with car.running() as agent:  # there is no broker, so all batches stay
        agent.until_status(
            lambda status: status["spool"]["waiting"] > 4 and status["spool"]["checkpoints"] > 0,
            "windows and checkpoints",
        )
        files = contents(state)
        assert agent.stop() == 0
    sealed = {path: content for path, content in files.items() if path.suffix == ".batch"}
    assert len(sealed) > 4
    fleet = read_recipient(car.fleet)
    device = read_p256(car.identity / "device.key.pem").public_key()
    bodies = [unseal(content, fleet, device)[1] for content in sealed.values()]
    plain = [text for body in bodies for text in unpacked(body)]
    words = names()
    assert len(telling(b"".join(plain), words)) > 20  # the search would find them

    pieces = [text[at : at + WINDOW] for text in (*plain, *bodies) for at in range(0, len(text) - WINDOW, 997)]
    pieces = [piece for piece in pieces if len(set(piece)) > WINDOW // 2]
    secrets = [fleet.raw, fleet.raw[:32], fleet.raw[-32:]]
    encoded = [form for raw in secrets for form in (raw, raw.hex().encode(), base64.b64encode(raw)[:40])]
    for path, content in files.items():
        if path.parent.name != PLANS:
            assert telling(content, words) == set(), path
        for text in (content, *unpacked(content)):
            assert not [piece for piece in pieces if piece in text], path
        assert not [secret for secret in encoded if secret in content], path
        assert b"PRIVATE KEY" not in content, path  # the device's signing key lies in the identity folder
        with pytest.raises(Untrusted):
            decode_batch(content)
    public = X25519PrivateKey.from_private_bytes(fleet.raw[-32:]).public_key().public_bytes_raw()
    assert opens(fleet.to_json(), public)  # the search would find it
    for path, content in (files | contents(car.identity)).items():  # the identity is on the same flash
        assert not opens(content, public), path
    assert {read_header(content).key_id for content in sealed.values()} == {fleet.key_id}
