"""`fleet keys root`: sign a new root with offline keys, for example to replace a lost or stolen key."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from agent.errors import Permanent
from agent.system.durable import write_file
from fleet.commands.output import report
from fleet.commands.token_arguments import (
    KEY_HELP,
    add_token_arguments,
    names_token,
    refuse_token_arguments,
    token_key_of,
)
from fleet.state.folder import ROOT_KEYS, FleetFolder

if TYPE_CHECKING:
    from fleet.publishing.root_ceremony import Ceremony

_T = TypeVar("_T")

SUMMARY: Final = "sign a new root with offline keys, to replace lost or stolen push keys"
EXAMPLE: Final = """\
fleet keys root start --replace targets --out ceremony.json
  fleet keys root sign ceremony.json --key /media/stick1/root1.pem --out root1.sig
  fleet keys root sign ceremony.json --key 'pkcs11:token=root-2;object=root2' --module opensc-pkcs11.so --out root2.sig
  fleet keys root import ceremony.json root1.sig root2.sig"""
DESCRIPTION: Final = """\
start    Write a ceremony: the unsigned next root. --replace ROLE makes a new key for targets, snapshot or timestamp.
         --replace root2=NEW.pub.pem puts another root key in the place of root2. Without --replace, the next root only
         lives longer.
key      Make a new root key, with its public half beside it. Do this on a PC without a network. With --key URI, write
         the public half of a key in a token to --out; with --generate, make that key in the token.
sign     Sign the ceremony with one root key. Do this on a PC without a network; it needs no fleet folder. The key is
         a file, or lies in a token (smart card, security module), which asks for its PIN.
import   Check the signatures, publish the root, and sign all pushes with its keys. Vehicles follow next time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet keys root`."""
    parser.add_argument("step", choices=("start", "key", "sign", "import"), help="the step of the ceremony")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="the ceremony, and for import the signatures"
    )
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="KEY",
        help="the key to replace: targets, snapshot, timestamp, or root1=NEW.pub.pem; may be repeated",
    )
    parser.add_argument("--key", metavar="FILE|URI", help=f"the private root key to sign with: {KEY_HELP}")
    parser.add_argument("--generate", action="store_true", help="with `key` and a URI: make the key in the token")
    add_token_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write")


def run(args: argparse.Namespace) -> int:
    """Run one step, and print what comes next."""
    step = {"start": _start, "key": _key, "sign": _sign, "import": _import}[args.step]
    step(args)
    return 0


def _start(args: argparse.Namespace) -> None:
    from fleet.publishing.root_ceremony import start

    out = _needed(args.out, "--out")
    root_keys: dict[str, Path] = {}
    roles: list[str] = []
    for text in args.replace:
        name, equals, file = text.partition("=")
        if name in ROOT_KEYS and not equals:
            raise Permanent(f"--replace {name} lacks the new key. Write --replace {name}=NEW.pub.pem.")
        if name in root_keys or name in roles:
            raise Permanent(f"--replace {name} is there twice. Remove one of them.")
        if equals:
            root_keys[name] = Path(file)
        else:
            roles.append(name)
    ceremony = start(FleetFolder(args.fleet), replace=roles, root_keys=root_keys, now=datetime.now(UTC))
    write_file(out, ceremony.to_json())
    changes = ceremony.changes()
    report(
        args,
        {"out": str(out), "version": ceremony.following.signed.version, "changes": changes},
        "\n".join([*changes, f"Sign {out} with two root keys: fleet keys root sign {out} --key KEY.pem --out KEY.sig"]),
    )


def _key(args: argparse.Namespace) -> None:
    from fleet.publishing.root_keys import make_root_key, write_root_key

    out = _needed(args.out, "--out")
    if args.key is None:
        if args.generate:
            raise Permanent("--generate makes the key in a token. Give --key with its PKCS#11 URI.")
        refuse_token_arguments(args)
        public, key = make_root_key(out), str(out)
        kept = f"Keep {out} in a safe."
    elif names_token(args.key):
        token_key, key, public = token_key_of(args), args.key, out
        write_root_key(out, token_key.generate if args.generate else token_key.public_key)
        kept = "The key was made in the token, and cannot leave it." if args.generate else "The key stays in the token."
    else:
        raise Permanent(
            "`fleet keys root key` reads keys in tokens only. Give --key with a PKCS#11 URI, or leave it out."
        )
    report(
        args,
        {"key": key, "public": str(public)},
        f"{kept} Give {public} to `fleet keys root start --replace root1={public}`.",
    )


def _sign(args: argparse.Namespace) -> None:
    from fleet.publishing.root_ceremony import sign, sign_with_token

    (file,) = _files(args, 1)
    ceremony = _ceremony(file)
    key = _needed(args.key, "--key")
    out = _needed(args.out, "--out")
    if names_token(key):
        signature = sign_with_token(ceremony, token_key_of(args), key)
    else:
        refuse_token_arguments(args)
        signature = sign(ceremony, Path(key))
    write_file(out, json.dumps(signature.to_dict()).encode() + b"\n")
    changes = ceremony.changes()
    report(
        args,
        {"out": str(out), "key": signature.keyid, "changes": changes},
        "\n".join(["You have signed these changes:", *changes, f"The signature is in {out}."]),
    )


def _import(args: argparse.Namespace) -> None:
    from fleet.publishing.root_ceremony import import_signatures, read_signature

    file, *others = _files(args, 2)
    signatures = [read_signature(_read(other), str(other)) for other in others]
    versions = import_signatures(FleetFolder(args.fleet), _ceremony(file), signatures, now=datetime.now(UTC))
    report(
        args,
        {"root": versions.root, "targets": versions.targets},
        f"Root {versions.root} is published, and release {versions.targets} is signed with its keys.",
    )


def _ceremony(file: Path) -> "Ceremony":
    from fleet.publishing.root_ceremony import Ceremony

    return Ceremony.from_json(_read(file), str(file))


def _files(args: argparse.Namespace, least: int) -> list[Path]:
    files: list[Path] = args.files
    if len(files) < least or (args.step == "sign" and len(files) > 1):
        wanted = "the ceremony" if least == 1 else "the ceremony and the signatures"
        raise Permanent(f"`fleet keys root {args.step}` needs {wanted}. See `fleet keys root --help`.")
    return files


def _needed(value: _T | None, option: str) -> _T:
    if value is None:
        raise Permanent(f"Please give {option}. See `fleet keys root --help`.")
    return value


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Permanent(f"{file} cannot be read ({error.strerror}). Check the path.") from error
