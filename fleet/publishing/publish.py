"""`fleet publish`: sign toggles and campaigns and put them into the repository, from where vehicles fetch
them.

Invariant: nothing is signed that a vehicle would refuse.  Every document passes the validators that the
vehicle uses, and the whole must fit into one bundle, before a key is touched.  Targets that a command does
not name stay as they are.
"""

import argparse
import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, TargetFile, Targets

from agent.errors import AgentError, Permanent, Transient
from agent.formats import topics
from agent.formats.down.audience import EVERYONE, AudienceLists, parse_audience
from agent.formats.down.bundle import BUNDLE_BYTES, TIMESTAMP, Versions, build_bundle
from agent.formats.down.campaign import parse_campaign
from agent.formats.down.evaluation import check_toggles
from agent.link.mqtt import Endpoint, connect
from agent.system.arguments import whole
from fleet.commands.arguments import address
from fleet.publishing import repository
from fleet.state.folder import FleetFolder

EXPIRY_DAYS: Final = 90  # vehicles refuse a repository that nobody has signed for so long: somebody holds it back
TOGGLES: Final = "toggles.json"
_SIGNATURES_BYTES: Final = 1_000  # of metadata that is not yet signed when its size is checked


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication came to: the versions now in force, and the bytes of a bundle from scratch."""

    versions: Versions
    targets: tuple[str, ...]
    bundle_bytes: int


def create_repository(folder: FleetFolder, now: datetime) -> Versions:
    """Make the repository of a new fleet, signed at `now`, with its root and no targets.

    The keys must exist.  Raises Permanent.
    """
    return repository.create(folder, now)


def publish(
    folder: FleetFolder,
    *,
    toggles: Path | None = None,
    campaigns: Sequence[Path] = (),
    remove_campaigns: Sequence[str] = (),
    audience: AudienceLists = EVERYONE,
    expiry_days: int = EXPIRY_DAYS,
    now: datetime,
) -> Published:
    """Publish these documents for `audience`; without any document, sign the timestamp anew.

    Raises Permanent naming the file and its fault, Transient while another publisher works.
    """
    contents = _read_documents(toggles, campaigns)
    with repository.locked(folder):
        state = repository.read_state(folder.metadata)
        targets = dict(state.targets.targets)
        for name in remove_campaigns:
            if targets.pop(f"campaigns/{name}.json", None) is None:
                there = [path.removeprefix("campaigns/").removesuffix(".json") for path in targets if path != TOGGLES]
                raise Permanent(f"no campaign {name!r} is published; there are: {', '.join(there) or 'none'}")
        for path, content in contents.items():
            targets[path] = _target(path, content, audience)
        size = _bundle_bytes(folder, state, targets, contents)
        if targets == state.targets.targets and state.targets.expires > now + timedelta(days=expiry_days):
            versions = repository.refresh(folder, state, now=now, expiry_days=expiry_days)
        else:
            versions = repository.write_version(
                folder, state.versions, targets, contents, now=now, expiry_days=expiry_days
            )
    return Published(versions, tuple(targets), size)


async def nudge(folder: FleetFolder, host: str, port: int) -> None:
    """Tell every connected vehicle that something is new.

    Raises Transient and Permanent of `agent.link.mqtt`.
    """
    endpoint = Endpoint(
        host=host,
        port=port,
        ca_file=folder.ca_certificate,
        cert_file=folder.receiver_certificate,
        key_file=folder.receiver_key,
        client_id="publisher",
    )
    async with connect(endpoint) as connection:
        await connection.publish(topics.NUDGE, b"")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fleet publish`; `--fleet` and `--json` are the caller's."""
    parser.add_argument("--toggles", type=Path, metavar="FILE", help="flagd flag definition (JSON)")
    parser.add_argument("--campaign", type=Path, metavar="FILE", action="append", default=[], help="campaign (JSON)")
    parser.add_argument("--remove-campaign", metavar="NAME", action="append", default=[], help="stop this campaign")
    parser.add_argument(
        "--audience", metavar="KEY=VALUE,...", help="only these vehicles: brand, model, market, model_year, vehicle"
    )
    parser.add_argument(
        "--expiry-days",
        type=whole(1, repository.DOCUMENT_DAYS),
        default=EXPIRY_DAYS,
        metavar="N",
        help="after so many days vehicles take it for held back, unless it is published again (%(default)s)",
    )
    parser.add_argument("--broker", type=address, metavar="HOST:PORT", help="nudge connected vehicles afterwards")


def run(args: argparse.Namespace, folder: FleetFolder) -> dict[str, object]:
    """Carry out `fleet publish` with arguments of `add_arguments`; what to report.

    Raises Permanent, Transient.
    """
    audience = parse_audience(args.audience)
    if audience and not args.toggles and not args.campaign:
        raise Permanent("--audience says whom --toggles and --campaign are for: give one of these, too")
    host, port = args.broker or ("", 0)
    published = publish(
        folder,
        toggles=args.toggles,
        campaigns=args.campaign,
        remove_campaigns=args.remove_campaign,
        audience=audience,
        expiry_days=args.expiry_days,
        now=datetime.now(UTC),
    )
    versions = published.versions
    if host:
        try:
            asyncio.run(nudge(folder, host, port))
        except AgentError as error:
            raise Transient(
                f"published as version {versions.targets}, but nobody was told ({error}); vehicles find it when they "
                f"connect next, or after `fleet publish --broker {host}:{port}`"
            ) from error
    return {
        "root": versions.root,
        "timestamp": versions.timestamp,
        "snapshot": versions.snapshot,
        "targets": versions.targets,
        "documents": list(published.targets),
        "bundle_bytes": published.bundle_bytes,
        "nudged": bool(host),
    }


def _read_documents(toggles: Path | None, campaigns: Sequence[Path]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    if toggles is not None:
        contents[TOGGLES] = _read(toggles)
        check_toggles(contents[TOGGLES], str(toggles), ())
    for file in campaigns:
        content = _read(file)
        path = f"campaigns/{parse_campaign(content, str(file)).name}.json"
        if path in contents:
            raise Permanent(f"{file}: another file of this command has the same campaign name")
        contents[path] = content
    return contents


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Permanent(f"cannot read {file}: {error.strerror}") from error


def _target(path: str, content: bytes, audience: AudienceLists) -> TargetFile:
    fields: dict[str, object] = {}
    if audience:
        fields["custom"] = {"audience": {key: list(values) for key, values in audience.items()}}
    return TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, path, fields)


def _bundle_bytes(
    folder: FleetFolder,
    state: repository.State,
    targets: Mapping[str, TargetFile],
    contents: Mapping[str, bytes],
) -> int:
    """Size of the bundle that a vehicle from the factory will get.

    Raises Permanent where it would be too large.
    """
    document = Targets(version=state.targets.version + 1, targets=dict(targets))
    files = {
        TIMESTAMP: Metadata(state.timestamp).to_bytes(),
        "metadata/1.snapshot.json": Metadata(state.snapshot).to_bytes(),
        "metadata/1.targets.json": Metadata(document).to_bytes(),
    }
    for version in range(2, state.root + 1):
        name = f"{version}.root.json"
        files[f"metadata/{name}"] = _read(folder.metadata / name)
    for path, target in targets.items():
        name = repository.stored_name(target)
        files[f"targets/{name}"] = contents[path] if path in contents else _read(folder.targets / name)
    size = len(build_bundle(files)) + _SIGNATURES_BYTES
    if size > BUNDLE_BYTES:
        raise Permanent(f"a bundle from scratch would have {size} bytes; at most {BUNDLE_BYTES} fit one message")
    return size
