"""Read the configuration file `agent.toml` strictly, into the structures of `agent.settings.sections`.

An unknown key, a wrong type, a value out of its range and an impossible pair of values are errors, because a typing
mistake must not silently become a default.  Relative paths in the file start at its folder.
"""

import tomllib
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Mistakes, Permanent
from agent.settings.mistakes import explain, mistakes
from agent.settings.sections import ReplaySettings, Settings

REPLAY_MARK: Final = "replay:"
"""The prefix of the names of campaigns in a replay, by which queries can exclude or select its samples."""


class Loaded(msgspec.Struct, frozen=True):
    """Holds the settings and the file that they came from.

    The names of all campaigns begin with `mark`, so that the lake tells samples of a replay from those of drives.
    """

    settings: Settings
    # The path is absolute, so that relative names in the file still resolve if the process changes its folder.
    file: Path
    mark: str = ""

    def path(self, name: str) -> Path:
        """Return `name` as an absolute path; a relative name starts at the folder of the configuration file."""
        return (self.file.parent / Path(name).expanduser()).resolve()


def load(file: Path) -> Loaded:
    """Read and parse `file`.  Raises: Permanent that names the file, the key and the remedy."""
    try:
        text = file.read_text(encoding="utf-8")
    except PermissionError as error:
        raise Permanent(
            f"{file}: the configuration cannot be read: {error.strerror}; run the command as root or as the agent's "
            "user (headunit-agent)"
        ) from error
    except OSError as error:
        raise Permanent(
            f"{file}: the configuration cannot be read: {error.strerror}; name the file with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise Permanent(f"{file}: the file is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return Loaded(settings=parse(text, str(file)), file=file.resolve())


def parse(text: str, name: str) -> Settings:
    """Parse TOML `text`; messages call the file `name`.  Raises: Permanent that names the key and the remedy."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Permanent(
            f"{name}: the file is not valid TOML: {error}; correct that place (texts stand in quotes, and each table "
            "occurs once)"
        ) from error
    try:
        return msgspec.convert(document, type=Settings)
    except msgspec.ValidationError as error:
        # msgspec stops at the first mistake, but a user wants to see all of them, to correct them together.
        raise Mistakes([f"{name}: {explain(each, document)}" for each in mistakes(document, str(error))]) from error


def with_replay(loaded: Loaded, log: Path, speed: float, zone: str = "") -> Loaded:
    """Return the configuration with `log` in place of all sources, and with REPLAY_MARK.

    `zone` is the time zone of dates in the log that name none.  Raises: Permanent if `speed` is out of range.
    """
    # `convert` checks the range of the speed, and the constructor of the class does not.
    try:
        source = msgspec.convert(
            {"kind": "replay", "log": str(log.resolve()), "speed": speed, "timezone": zone},
            type=ReplaySettings,
            strict=True,
        )
    except msgspec.ValidationError as error:
        what = str(error).partition(" - at ")[0]
        raise Permanent(f"--speed {speed:g}: {what[0].lower()}{what[1:]}") from error
    settings = msgspec.structs.replace(loaded.settings, sources=(source,))
    return Loaded(settings=settings, file=loaded.file, mark=REPLAY_MARK)
