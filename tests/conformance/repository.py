"""Signs a TUF repository and serves it as a bundle.  A case changes what is signed, or damages what is served."""

import copy
from datetime import timedelta
from typing import Any, cast

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from agent.errors import Permanent
from agent.formats.down.bundle import TIMESTAMP, build_bundle
from tests.agent.pushes.world import NOW

ROOT, TIME, SNAPSHOT, TARGETS = "root", "timestamp", "snapshot", "targets"
ONLINE = (TARGETS, SNAPSHOT, TIME)
"""The roles that are signed for every push, in the order in which each names the one before."""
ALL = (ROOT, *ONLINE)
DAYS = 30


class Repository:
    """Holds the metadata to be signed next in `signed`, the keys in `signers`, and what is served in `files`.

    `hashes` says whether timestamp and snapshot name the hashes and lengths of the files that they list.
    """

    def __init__(self) -> None:
        expires = NOW + timedelta(days=DAYS)
        self.hashes = False
        self.files: dict[str, bytes] = {}
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.signed: dict[str, Any] = {
            ROOT: Root(expires=expires, consistent_snapshot=True),
            TIME: Timestamp(expires=expires),
            SNAPSHOT: Snapshot(expires=expires),
            TARGETS: Targets(expires=expires),
        }
        self._published: set[str] = set()
        for role in ALL:
            self.add_key(role)
        self.publish(*ALL)

    @property
    def root(self) -> Root:
        return cast(Root, self.signed[ROOT])

    @property
    def timestamp(self) -> Timestamp:
        return cast(Timestamp, self.signed[TIME])

    @property
    def snapshot(self) -> Snapshot:
        return cast(Snapshot, self.signed[SNAPSHOT])

    @property
    def targets(self) -> Targets:
        return cast(Targets, self.signed[TARGETS])

    @property
    def first_root(self) -> bytes:
        """Return the root that a vehicle gets at the factory."""
        return self.files["metadata/1.root.json"]

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """Let one more key sign `role`, and return its signer."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def replace_keys(self, role: str, *new: CryptoSigner) -> None:
        """Take all keys from `role`, and give it those in `new`, or one new key."""
        self.root.roles[role].keyids.clear()
        self.signers[role] = []
        for signer in new or (CryptoSigner.generate_ed25519(),):
            self.add_key(role, signer)

    def publish(self, *roles: str, version: int | None = None) -> None:
        """Sign and serve the next version of each role, or `version`, and name it in the role that lists it."""
        for role in roles:
            signed = self.signed[role]
            if version is not None:
                signed.version = version
            elif role in self._published:
                signed.version += 1
            self._published.add(role)
            content = self.sign(role)
            self.files[file_name(role, signed.version)] = content
            self.list_file(role, signed.version, content)

    def sign(self, role: str, signed: Signed | None = None) -> bytes:
        """Return `signed`, or the metadata of `role`, as a file that the keys of `role` have signed."""
        metadata: Metadata[Any] = Metadata(signed or self.signed[role])
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def altered(self, role: str, **fields: Any) -> bytes:
        """Return the metadata of `role` with other `fields`, signed.  What is signed next stays as it is."""
        signed = copy.deepcopy(self.signed[role])
        for name, value in fields.items():
            setattr(signed, name, value)
        return self.sign(role, signed)

    def list_file(self, role: str, version: int, content: bytes) -> None:
        """Name a version of `role` in the role that lists it."""
        meta = MetaFile.from_data(version, content, ["sha256"]) if self.hashes else MetaFile(version)
        if role == SNAPSHOT:
            self.timestamp.snapshot_meta = meta
        elif role not in (ROOT, TIME):
            self.snapshot.meta[f"{role}.json"] = meta

    def add_target(self, path: str, content: bytes, *, role: str = TARGETS, algorithms: tuple[str, ...] = ()) -> None:
        """List a target, with hashes by `algorithms`, and serve it."""
        target = TargetFile.from_data(path, content, list(algorithms or ("sha256",)))
        cast(Targets, self.signed[role]).targets[path] = target
        self.serve_target(target, content)

    def serve_target(self, target: TargetFile, content: bytes) -> None:
        """Serve `content` in place of a target, whether or not it has its hash."""
        folder, slash, name = target.path.rpartition("/")
        for digest in target.hashes.values():
            self.files[f"targets/{folder}{slash}{digest}.{name}"] = content

    def delegate(self, delegator: str, name: str, paths: list[str], *, terminating: bool = False) -> None:
        """Let `delegator` delegate `paths` to the role `name`, which is made if it is new, with a key of its own."""
        parent = cast(Targets, self.signed[delegator])
        parent.delegations = parent.delegations or Delegations({}, roles={})
        assert parent.delegations.roles is not None
        parent.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths)
        self.signed.setdefault(name, Targets(expires=NOW + timedelta(days=DAYS)))
        self.signers.setdefault(name, [CryptoSigner.generate_ed25519()])
        parent.add_key(self.signers[name][0].public_key, name)

    def bundle(self) -> bytes:
        """Return everything that is served and that a bundle can carry."""
        return build_bundle({name: content for name, content in self.files.items() if _can_be_carried(name)})


def file_name(role: str, version: int) -> str:
    """Return the name under which a version of `role` is served."""
    return TIMESTAMP if role == TIME else f"metadata/{version}.{role}.json"


def _can_be_carried(name: str) -> bool:
    try:
        build_bundle({name: b""})
    except Permanent:
        return False
    return True
