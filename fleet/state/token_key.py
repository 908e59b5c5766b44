"""Uses a key that lies in a PKCS#11 token, and never leaves it: signs with it, reads its public half, or makes it.

Two kinds of keys are supported, because vehicles verify both and nearly every token has the first: EC P-256 (ECDSA with
SHA-256) and Ed25519.  The library `python-pkcs11` is an optional extra of the fleet side (decision 37).

The digest for ECDSA is computed here.  The mechanism CKM_ECDSA, which signs a digest, is supported by more tokens than
CKM_ECDSA_SHA256.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import (
    Attribute,
    KeyType,
    Mechanism,
    MechanismFlag,
    ObjectClass,
    PKCS11Error,
    Session,
    Slot,
    Token,
    TokenFlag,
)

from agent.errors import Permanent
from fleet.state.keys import PublicKey
from fleet.state.pins import PinSource
from fleet.state.pkcs11_uri import Pkcs11Uri

# DER of the curve, as CKA_EC_PARAMS holds it.  Older tokens name Edwards curves by a string (PKCS#11 3.0, 2.3.3).
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
_ED25519: Final = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
_SUPPORTED: Final = "Use a key of EC P-256 or Ed25519."


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Names a key in a token, the PKCS#11 library (`module`) that reaches the token, and the source of the PIN."""

    uri: Pkcs11Uri
    module: Path
    pin: PinSource

    def sign(self, payload: bytes) -> bytes:
        """Return the signature of `payload`: for ECDSA in DER, as TUF writes it.

        Raises: Permanent if token, key or PIN are wrong, or if the token cannot sign.
        """
        with self._session(login=True) as session:
            return self._signature(session, payload)

    def public_key(self) -> PublicKey:
        """Read the public half.  Most tokens show it without the PIN.

        Raises: Permanent if token, key or PIN are wrong, or if the token holds no public half.
        """
        for login in (False, True):
            with self._session(login=login) as session:
                found = self._objects(session, ObjectClass.PUBLIC_KEY)
                if found:
                    return self._public_half(self._only(found))
        raise Permanent(
            f"The token has no public key that is called {self._name()}. Check the URI, or import the public half into "
            "the token. To make a new key in the token, add --generate."
        )

    def generate(self) -> PublicKey:
        """Make a new EC P-256 key in the token, from which it cannot be read, and return its public half.

        Raises: Permanent if there is a key of this name already, or if the token makes no keys.
        """
        with self._session(login=True, write=True) as session:
            if self._objects(session, ObjectClass.PRIVATE_KEY) or self._objects(session, ObjectClass.PUBLIC_KEY):
                raise Permanent(
                    f"The token has a key that is called {self._name()} already. To read its public half, leave out "
                    "--generate; for a new key, choose another label (object=)."
                )
            curve = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
            public, _ = curve.generate_keypair(
                store=True,
                label=self.uri.object,
                id=self.uri.id or secrets.token_bytes(8),  # other programs find the two halves of a key by the id
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            return self._public_half(public)

    def _signature(self, session: Session, payload: bytes) -> bytes:
        found = self._objects(session, ObjectClass.PRIVATE_KEY)
        if not found:
            raise Permanent(f"The token has no private key that is called {self._name()}. Check object= and id=.")
        key = self._only(found)
        if key.key_type is KeyType.EC:
            data, mechanism = hashlib.sha256(payload).digest(), Mechanism.ECDSA
        elif key.key_type is KeyType.EC_EDWARDS:
            data, mechanism = payload, Mechanism.EDDSA
        else:
            raise Permanent(f"The key {self._name()} is of the type {key.key_type.name}. {_SUPPORTED}")
        try:
            again = key[Attribute.ALWAYS_AUTHENTICATE]
        except PKCS11Error:  # a token that does not know this attribute asks for the PIN once
            again = False
        signed: bytes = key.sign(data, mechanism=mechanism, pin=self.pin.read(session.token.label) if again else None)
        if mechanism is Mechanism.EDDSA:
            return signed
        half = len(signed) // 2
        return encode_dss_signature(int.from_bytes(signed[:half]), int.from_bytes(signed[half:]))

    def _public_half(self, key: Any) -> PublicKey:
        curve, point = key[Attribute.EC_PARAMS], key[Attribute.EC_POINT]
        try:
            if curve == _P256:
                # CKA_EC_POINT is an octet string in DER; some tokens leave out its two bytes of type and length.
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point[-65:])
            if curve in _ED25519:
                return ed25519.Ed25519PublicKey.from_public_bytes(point[-32:])
        except ValueError as error:
            raise Permanent(
                f"The token's public key for {self._name()} is damaged ({error}). Restore the token from its backup."
            ) from error
        raise Permanent(f"The key {self._name()} is of another curve. {_SUPPORTED}")

    def _objects(self, session: Session, kind: Any) -> list[Any]:
        wanted: dict[Any, Any] = {Attribute.CLASS: kind}
        if self.uri.object is not None:
            wanted[Attribute.LABEL] = self.uri.object
        if self.uri.id is not None:
            wanted[Attribute.ID] = self.uri.id
        return list(session.get_objects(wanted))

    def _only(self, found: list[Any]) -> Any:
        if len(found) > 1:
            raise Permanent(
                f"The token has {len(found)} keys that are called {self._name()}. Add the identifier of the right one "
                "(id=%01)."
            )
        return found[0]

    def _name(self) -> str:
        words = [] if self.uri.object is None else [f"object={self.uri.object}"]
        return ";".join(words if self.uri.id is None else [*words, f"id={self.uri.id.hex()}"])

    # ---------------------------------------------------------------- the token

    @contextmanager
    def _session(self, *, login: bool, write: bool = False) -> Iterator[Session]:
        """Open the token for a `with` block, and close library and token afterwards."""
        library = self._library()
        try:
            with self._explained():
                token = self._token(library)
                pin = self._login(token) if login else None
                with token.open(rw=write, user_pin=pin) as session:
                    yield session
        finally:
            with suppress(PKCS11Error):  # what was done is done, even if the library does not close
                library.finalize()

    def _library(self) -> Any:
        if not self.module.is_file():
            raise Permanent(
                f"The PKCS#11 library {self.module} does not exist. Give the library of the token's vendor with "
                "--module FILE (for SoftHSM: /usr/lib/softhsm/libsofthsm2.so)."
            )
        try:
            return pkcs11.lib(str(self.module.resolve()))
        except pkcs11.PKCS11Error as error:
            raise Permanent(f"{self.module} is not a PKCS#11 library that works here ({_said(error)}).") from error

    def _token(self, library: Any) -> Token:
        present = map(_initialized, library.get_slots(token_present=True))
        tokens = [token for token in present if token is not None]
        found = [token for token in tokens if self._is_meant(token)]
        if len(found) == 1:
            return found[0]
        names = sorted(f"token={token.label};serial={_text(token.serial)}" for token in found or tokens)
        listed = ", ".join(names) or "none"
        if found:
            raise Permanent(f"Several tokens match the URI: {listed}. Add the serial number of the right one.")
        raise Permanent(f"No token matches the URI. Tokens that {self.module} sees: {listed}.")

    def _is_meant(self, token: Token) -> bool:
        wanted = self.uri
        pairs = (
            (wanted.token, token.label),
            (wanted.serial, _text(token.serial)),
            (wanted.manufacturer, token.manufacturer_id),
            (wanted.model, token.model),
            (wanted.slot_id, token.slot.slot_id),
        )
        return all(asked is None or asked == held for asked, held in pairs)

    def _login(self, token: Token) -> Any:
        if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:  # the token has keys for its PIN
            return pkcs11.PROTECTED_AUTH
        return self.pin.read(token.label)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the PKCS#11 library into errors that say what to do."""
        try:
            yield
        except pkcs11.PinLocked as error:
            raise Permanent(
                "The token is locked after too many wrong PINs. Unlock it with its vendor's tool."
            ) from error
        except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid) as error:
            raise Permanent(
                "The PIN is wrong. Check it before you try again, because a token locks itself after a few wrong PINs."
            ) from error
        except pkcs11.MechanismInvalid as error:
            raise Permanent(f"The token cannot do this with the key {self._name()}. {_SUPPORTED}") from error
        except pkcs11.PKCS11Error as error:
            raise Permanent(f"The token refused: {_said(error)}. See the manual of the token.") from error


def _initialized(slot: Slot) -> Token | None:
    """Return the token in a slot, or None if it is not ready for use."""
    try:
        token = slot.get_token()
    except PKCS11Error:  # a card of another kind, or one that was pulled out just now
        return None
    return token if token.flags & TokenFlag.TOKEN_INITIALIZED else None


def _text(serial: bytes | str) -> str:
    return serial if isinstance(serial, str) else serial.decode(errors="replace").strip()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
