"""A configuration with the content of the files that it names: everything that is read before anything is opened.

`check` and `run` both read it through these functions, so what `check` accepts, `run` can build.  Each function raises
Permanent that names the file and the remedy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Permanent
from agent.formats.down import campaign
from agent.formats.down.campaign import Campaign
from agent.settings.identity import Identity
from agent.settings.identity import load as load_identity
from agent.settings.plans import bus_plans
from agent.settings.sections import Settings
from agent.settings.settings import Loaded
from agent.system.durable import make_folder
from can_dbc.plan import BusPlan


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """A campaign and its source: a file, or a push."""

    source: str
    campaign: Campaign


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that the configuration file and the files that it names say.

    The folders `state` and `runtime_folder` exist.  `local` are the campaigns on board, which hold until the fleet
    pushes its own.
    """

    loaded: Loaded
    identity: Identity
    state: Path
    runtime_folder: Path
    plans: Mapping[str, BusPlan]
    local: tuple[CampaignFile, ...]

    @property
    def settings(self) -> Settings:
        """Return the settings of the configuration file."""
        return self.loaded.settings

    def equals_except_campaigns(self, other: "Configuration") -> bool:
        """Return whether a running agent only needs to exchange its campaigns to go from `other` to this one."""
        # Values and not times of files are compared, so a file that was written again unchanged is no change.
        return (self.loaded, self.identity, self.plans) == (other.loaded, other.identity, other.plans)


def read_configuration(loaded: Loaded) -> Configuration:
    """Read the files that `loaded` names, except those of the sources, and make its folders.  Blocking."""
    settings = loaded.settings
    return Configuration(
        loaded,
        load_identity(loaded.path(settings.identity.folder)),
        _make_folder(loaded, "folder", settings.state.folder, mode=0o700),
        # Apps of the head unit, which run as other users, read flagd's file there.
        _make_folder(loaded, "runtime_folder", settings.state.runtime_folder, mode=0o755),
        bus_plans(loaded),
        local_campaigns(loaded.path(settings.telemetry.campaigns)),
    )


def local_campaigns(folder: Path) -> tuple[CampaignFile, ...]:
    """Return the campaigns in `folder` (*.json), by file name; a missing folder has none."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return parse_campaigns((str(file), _read(file)) for file in files)


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[CampaignFile, ...]:
    """Return the campaigns of (source, JSON) pairs.  Raises: Permanent, also if two campaigns have one name."""
    return tuple(CampaignFile(source, parsed) for source, parsed in campaign.parse_campaigns(documents))


def _make_folder(loaded: Loaded, key: str, name: str, *, mode: int) -> Path:
    """Make the folder with `mode`, whatever the umask says; an existing folder keeps its mode."""
    folder = loaded.path(name)
    try:
        # `make_folder` takes 0700 for every folder on the way; only the last one gets `mode`.
        if not folder.is_dir():
            make_folder(folder)
            folder.chmod(mode)
    except OSError as error:
        raise Permanent(
            f"{loaded.file}: state.{key}: cannot make {folder} ({error.strerror}); name one that the agent may write"
        ) from error
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; make it readable for the agent, or remove it") from error
