"""Describes the location of a lake, and the options that the Delta library needs to open it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Permanent


@dataclass(frozen=True, slots=True)
class Location:
    """Holds the folder or URL of a lake, and storage options for the Delta library.

    The options have the library's names (`aws_region`, `azure_storage_account_name`, ...), and add to its environment
    variables.  They may be secret, so `repr` does not show them.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lake: "str | Location") -> "Location":
        """Return `lake` as a location.  A text is taken as folder or URL without options."""
        return cls(lake) if isinstance(lake, str) else lake

    def table(self, name: str) -> str:
        """Return the folder or URL of the table `name`."""
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """Return the options as the Delta library takes them: a dict, or None if there are none."""
        return dict(self.options) or None


def read_location(uri: str, options_file: Path | None) -> Location:
    """Return the location of the lake at `uri`, a folder or a URL, with options from a TOML file.

    Raises: Permanent if the file cannot be read, is not TOML, or has a value that is not text.
    """
    # The folder is made absolute, because a relative folder would depend on the working directory.
    located = uri if "://" in uri else str(Path(uri).resolve())
    if options_file is None:
        return Location(located)
    try:
        options = tomllib.loads(options_file.read_text())
    except OSError as error:
        raise Permanent(
            f"--lake-options {options_file}: The file cannot be read ({error.strerror}). Check the path and its mode."
        ) from error
    except ValueError as error:
        # The file is not text, or not TOML.
        raise Permanent(
            f"--lake-options {options_file}: The file is not valid TOML ({error}). Correct the file."
        ) from error
    for key, value in options.items():
        if not isinstance(value, str):
            raise Permanent(
                f'--lake-options {options_file}: The value of {key} is not text. Put it in quotes: {key} = "..."'
            )
    return Location(located, options)
