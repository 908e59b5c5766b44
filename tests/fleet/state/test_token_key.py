"""A key in a real PKCS#11 token (SoftHSM) signs, shows its public half, and every mistake has its own message."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.errors import Permanent
from fleet.state.pins import VARIABLE, PinSource
from fleet.state.pkcs11_uri import parse
from tests.fleet.softhsm import PIN, Tokens

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: make setup")
from fleet.state.keys import PublicKey  # noqa: E402
from fleet.state.token_key import TokenKey  # noqa: E402

PAYLOAD = b"the next root" * 1_000


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    monkeypatch.delenv(VARIABLE, raising=False)
    made = Tokens.make(tmp_path, monkeypatch)
    made.token("root-1")
    return made


def key(tokens: Tokens, uri: str, pin: Path | None = None) -> TokenKey:
    return TokenKey(parse(uri), tokens.library, PinSource(pin or tokens.pin_file))


def openssl_verifies(public: PublicKey, signature: bytes, folder: Path) -> bool:
    """Ask OpenSSL's program, which shares nothing with the code under test."""
    files = {"pub": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "sig": signature}
    for name, content in (files | {"payload": PAYLOAD}).items():
        (folder / name).write_bytes(content)
    raw = ["-rawin"] if isinstance(public, ed25519.Ed25519PublicKey) else ["-rawin", "-digest", "sha256"]
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-sigfile", "sig", "-in", "payload", *raw]
    return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("kind", "more"),
    [("EC:prime256v1", ()), ("EC:prime256v1", ("--always-auth",)), ("EC:edwards25519", ())],
    ids=["P-256", "P-256 with the PIN for each signature", "Ed25519"],
)
def test_a_key_that_another_program_made_signs(
    tokens: Tokens, tmp_path: Path, kind: str, more: tuple[str, ...]
) -> None:
    used = key(tokens, tokens.key("root-1", "root1", kind, *more))
    public = used.public_key()
    assert openssl_verifies(public, used.sign(PAYLOAD), tmp_path)


def test_a_new_key_is_made_in_the_token_and_cannot_leave_it(tokens: Tokens, tmp_path: Path) -> None:
    used = key(tokens, "pkcs11:token=root-1;object=root1")
    public = used.generate()
    assert "never extractable" in tokens.tool("root-1", "--list-objects", "--type", "privkey")
    assert openssl_verifies(public, used.sign(PAYLOAD), tmp_path)
    with pytest.raises(Permanent, match="has a key that is called object=root1 already"):
        used.generate()


def test_a_key_is_found_by_identifier_serial_and_slot(tokens: Tokens) -> None:
    tokens.key("root-1", "twin", key_id="01")
    tokens.key("root-1", "twin", key_id="a0b1")
    tokens.token("root-2")
    with pytest.raises(Permanent, match=r"2 keys that are called object=twin. Add the identifier"):
        key(tokens, "pkcs11:token=root-1;object=twin").public_key()
    key(tokens, "pkcs11:token=root-1;object=twin;id=%a0%b1").public_key()
    with pytest.raises(Permanent, match=r"Several tokens match.*token=root-1;serial=\w+, token=root-2"):
        key(tokens, "pkcs11:manufacturer=SoftHSM%20project;id=%01").public_key()
    with pytest.raises(Permanent, match=r"No token matches the URI. Tokens that .* sees: token=root-1;serial="):
        key(tokens, "pkcs11:token=root-9;id=%01").public_key()


@pytest.mark.parametrize(
    ("pin", "says"), [("1234-wrong", "The PIN is wrong"), ("1", "The PIN is wrong"), ("", "empty")]
)
def test_a_wrong_pin_is_said_once_and_not_tried_again(tokens: Tokens, tmp_path: Path, pin: str, says: str) -> None:
    uri = tokens.key("root-1", "root1")
    file = tmp_path / "wrong"
    file.write_text(pin)
    with pytest.raises(Permanent, match=says) as refused:
        key(tokens, uri, file).sign(PAYLOAD)
    assert PIN not in str(refused.value)


def test_the_pin_may_be_in_the_environment_and_its_absence_is_explained(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = TokenKey(parse(tokens.key("root-1", "root1")), tokens.library, PinSource())
    used.public_key()  # needs no PIN
    with pytest.raises(Permanent, match=f"Give --pin-file FILE, set the variable {VARIABLE}"):
        used.sign(PAYLOAD)
    monkeypatch.setenv(VARIABLE, PIN)
    assert used.sign(PAYLOAD)


def test_a_key_of_another_kind_is_refused(tokens: Tokens) -> None:
    curve = key(tokens, tokens.key("root-1", "p384", "EC:secp384r1"))
    with pytest.raises(Permanent, match=r"of another curve. Use a key of EC P-256 or Ed25519"):
        curve.public_key()
    with pytest.raises(Permanent, match=r"of the type RSA. Use a key of EC P-256 or Ed25519"):
        key(tokens, tokens.key("root-1", "rsa", "rsa:2048", key_id="02")).sign(PAYLOAD)


def test_a_missing_key_and_a_wrong_library_are_named(tokens: Tokens, tmp_path: Path) -> None:
    missing = key(tokens, "pkcs11:token=root-1;object=root7")
    with pytest.raises(Permanent, match=r"no public key that is called object=root7.*--generate"):
        missing.public_key()
    with pytest.raises(Permanent, match="no private key that is called object=root7"):
        missing.sign(PAYLOAD)
    text = tmp_path / "not-a-library.so"
    text.write_text("text")
    for library, says in ((text, "is not a PKCS#11 library"), (tmp_path / "none.so", "does not exist")):
        with pytest.raises(Permanent, match=says):
            TokenKey(missing.uri, library, missing.pin).public_key()
