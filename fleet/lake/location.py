"""Where a lake is, and what the Delta library must know to open it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Permanent


@dataclass(frozen=True, slots=True)
class Location:
    """The folder or URL of a lake, and options that the Delta library needs in addition to its environment.

    `options` are the library's (`aws_region`, `azure_storage_account_name`, ...).  They may be secret, so they are not
    shown in messages.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lake: "str | Location") -> "Location":
        """Return the location of a lake that may be given by its folder or URL alone."""
        return cls(lake) if isinstance(lake, str) else lake

    def table(self, name: str) -> str:
        """Return the folder or URL of one table."""
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """Return the options in the form that the Delta library takes."""
        return dict(self.options) or None


def read_location(uri: str, options_file: Path | None) -> Location:
    """Read a location: a folder, made absolute, or a URL, and options from a TOML file whose values are texts.

    Raises: Permanent where the file cannot be read or holds something else.
    """
    # A relative folder would be another lake in each working directory.
    located = uri if "://" in uri else str(Path(uri).resolve())
    if options_file is None:
        return Location(located)
    try:
        options = tomllib.loads(options_file.read_text())
    except OSError as error:
        raise Permanent(f"--lake-options {options_file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        # The file is not text, or not TOML.
        raise Permanent(f"--lake-options {options_file}: not valid TOML: {error}") from error
    for key, value in options.items():
        if not isinstance(value, str):
            raise Permanent(f'{options_file}: {key}: write the value as text, {key} = "..."')
    return Location(located, options)
