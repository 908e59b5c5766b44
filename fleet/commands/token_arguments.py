"""Arguments of commands that can use a key in a PKCS#11 token: the URI of the key, the library, and the PIN's file."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from fleet.state.pkcs11_uri import SCHEME, parse

if TYPE_CHECKING:
    from fleet.state.token_key import TokenKey

MODULE: Final = "PKCS11_MODULE"
"""The environment variable that may hold the path of the PKCS#11 library, as for other programs."""

INSTALL: Final = (
    "Keys in tokens need the package python-pkcs11, which is not installed. In a checkout, install it with: "
    "pip install --require-hashes -r requirements/pkcs11.txt"
)

KEY_HELP: Final = "a file, or the PKCS#11 URI of a key in a token (pkcs11:token=root-1;object=root1)"


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--module` and `--pin-file`.  Read their values with `token_key_of`."""
    parser.add_argument(
        "--module",
        type=Path,
        metavar="FILE",
        help=f"the PKCS#11 library of the token's vendor (default: module-path of the URI, or the variable {MODULE})",
    )
    parser.add_argument(
        "--pin-file",
        type=Path,
        metavar="FILE",
        help="a file with the PIN of the token (default: pin-source of the URI, or the variable FLEET_PIN, or a "
        "question in the terminal)",
    )


def names_token(key: str) -> bool:
    """Return whether `key` is a PKCS#11 URI, and not the path of a file."""
    return key.startswith(SCHEME)


def refuse_token_arguments(args: argparse.Namespace) -> None:
    """Raise Permanent if options were given that make sense only for a key in a token."""
    if args.module is not None or args.pin_file is not None:
        raise Permanent(f"--module and --pin-file need a key in a token. Give --key with a URI: {KEY_HELP}.")


def token_key_of(args: argparse.Namespace) -> "TokenKey":
    """Return the key that the URI `args.key` names.  Raises: Permanent if URI or library are missing or wrong."""
    from fleet.state.pins import PinSource

    try:
        from fleet.state.token_key import TokenKey
    except ModuleNotFoundError as error:
        raise Permanent(INSTALL) from error
    uri = parse(args.key)
    module = args.module or uri.module_path or os.environ.get(MODULE)
    if not module:
        raise Permanent(
            "Please give the PKCS#11 library of the token's vendor with --module FILE. For SoftHSM it is "
            "/usr/lib/softhsm/libsofthsm2.so, for smart cards /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so."
        )
    file = args.pin_file or uri.pin_source
    return TokenKey(uri, Path(module), PinSource(None if file is None else Path(file)))
