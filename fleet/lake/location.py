"""Where a lake is, and what the Delta library must know to open it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Permanent


@dataclass(frozen=True, slots=True)
class Location:
    """Where a lake is: a folder or URL, and what the Delta library wants to know besides its environment.

    `options` are the Delta library's (`aws_region`, `azure_storage_account_name`, ...); they may be secret.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lake: "str | Location") -> "Location":
        """A lake that needs no options may be given by its folder or URL alone."""
        return cls(lake) if isinstance(lake, str) else lake

    def table(self, name: str) -> str:
        """Folder or URL of one table."""
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """As the Delta library takes them."""
        return dict(self.options) or None


def read_location(uri: str, options_file: Path | None) -> Location:
    """A folder, made absolute, or a URL as it is; options from a TOML file of texts.  Permanent where that is none."""
    located = uri if "://" in uri else str(Path(uri).resolve())
    if options_file is None:
        return Location(located)
    try:
        options = tomllib.loads(options_file.read_text())
    except OSError as error:
        raise Permanent(f"--lake-options {options_file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # no text, or no TOML
        raise Permanent(f"--lake-options {options_file}: not valid TOML: {error}") from error
    for key, value in options.items():
        if not isinstance(value, str):
            raise Permanent(f'{options_file}: {key}: write the value as text, {key} = "..."')
    return Location(located, options)
