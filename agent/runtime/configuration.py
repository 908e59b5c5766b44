"""Read the files that the configuration file names, before the agent opens anything.

`check` and `run` both use these functions, so `run` can build every configuration that `check` accepts.  Each function
raises a Permanent error that names the file and the remedy.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from agent import __version__
from agent.errors import Permanent
from agent.formats.down import campaign
from agent.formats.down.campaign import Campaign
from agent.settings.identity import RENEWED, Identity
from agent.settings.identity import load as load_identity
from agent.settings.plans import bus_plans
from agent.settings.sections import Settings
from agent.settings.settings import Loaded
from agent.system.durable import make_folder
from can_dbc.plan import BusPlan


class CampaignFile(msgspec.Struct, frozen=True):
    """Holds a campaign, and in `source` the name of its file for messages."""

    source: str
    campaign: Campaign


class Configuration(msgspec.Struct, frozen=True):
    """Holds the content of the configuration file and of the files that it names.

    The folders `state` and `runtime_folder` exist.  `local` are the vehicle's own campaigns, which apply while the
    release in force has no campaigns.
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
        """Return whether this configuration and `other` are the same, apart from the vehicle's own campaigns."""
        # Values are compared, not the times of files, so a file that was written again unchanged counts as unchanged.
        return (self.loaded, self.identity, self.plans) == (other.loaded, other.identity, other.plans)


def read_configuration(loaded: Loaded) -> Configuration:
    """Read the files that `loaded` names, except the logs of sources, and make the folders of `[state]`.  Blocking.

    Raises: Permanent if a file is wrong or a folder cannot be made.
    """
    settings = loaded.settings
    state = _make_folder(loaded, "folder", settings.state.folder, mode=0o700)
    return Configuration(
        loaded,
        load_identity(
            loaded.path(settings.identity.folder), settings.identity.software or __version__, renewed=state / RENEWED
        ),
        state,
        # Apps of the head unit run as other users, and read flagd's file in this folder.
        _make_folder(loaded, "runtime_folder", settings.state.runtime_folder, mode=0o755),
        bus_plans(loaded),
        local_campaigns(loaded.path(settings.telemetry.campaigns)),
    )


def local_campaigns(folder: Path) -> tuple[CampaignFile, ...]:
    """Return the campaigns in `folder` (*.json), sorted by file name.  A missing folder has no campaigns."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return parse_campaigns((str(file), _read(file)) for file in files)


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[CampaignFile, ...]:
    """Parse (source, JSON) pairs, and return one campaign for each.

    Raises: Permanent if a document is wrong, or if two campaigns have the same name.
    """
    return tuple(CampaignFile(source, parsed) for source, parsed in campaign.parse_campaigns(documents))


def _make_folder(loaded: Loaded, key: str, name: str, *, mode: int) -> Path:
    """Make the folder with `mode`, whatever the umask says; an existing folder keeps its mode."""
    folder = loaded.path(name)
    try:
        # `make_folder` makes every missing folder with mode 0700.  Only the last one gets `mode`.
        if not folder.is_dir():
            make_folder(folder)
            folder.chmod(mode)
    except OSError as error:
        raise Permanent(
            f"{loaded.file}: state.{key}: cannot make {folder} ({error.strerror}); "
            "name a folder where the agent may write"
        ) from error
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; make the file readable for the agent, or remove it") from error
