"""Adapter: how python-can is asked for an interface, and who has to act if that fails."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import can

from agent.errors import Permanent, Transient

Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """One interface as the settings describe it.  An adapter only receives, so nothing here can send.

    `bitrate` 0 leaves the interface as it is set up.  `options` go to python-can as they are.
    """

    interface: str
    channel: str
    bitrate: int = 0
    _: KW_ONLY
    fd: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def open(self, bus: str) -> can.BusABC:
        """Open the interface that delivers `bus`.

        Raises: Transient if it is not there (yet); Permanent if the configuration is wrong.
        """
        where = f"source {bus}"
        arguments = self._arguments()
        try:
            # Without ignore_config a python-can.conf on the machine would silently change what the settings say.
            opened = can.Bus(self.channel, self.interface, ignore_config=True, **arguments)
        except NotImplementedError as error:
            known = ", ".join(sorted(can.VALID_INTERFACES))
            raise Permanent(
                f"{where}: interface = {self.interface!r}: {error}; install what it needs, or choose one of {known}"
            ) from error
        except (can.CanError, OSError, TypeError, ValueError) as error:
            # python-can wraps what a driver raises.  A wrong value stays wrong; all else may be cured by waiting.
            if any(isinstance(cause, TypeError | ValueError) for cause in _causes(error)):
                raise Permanent(f"{where}: {self._blamed(str(error))}: {error}") from error
            raise Transient(f"{where}: {self.interface} {self.channel} cannot be opened: {error}") from error
        unknown = [option for option in self.options if not _takes(type(opened), option)]
        if unknown:
            shut_down(opened)
            raise Permanent(
                f"{where}: options.{unknown[0]}: python-can's {self.interface} knows no such option; remove it"
            )
        return opened

    def _arguments(self) -> dict[str, Any]:
        """Return what python-can's constructor gets; options of the settings have the last word."""
        arguments: dict[str, Any] = {"receive_own_messages": False}
        if self.interface == "slcan":
            # A serial adapter acknowledges frames on the bus unless it listens only; SocketCAN is set up by the system.
            arguments["listen_only"] = True
        if self.bitrate:
            arguments["bitrate"] = self.bitrate
        if self.fd:
            arguments["fd"] = True
        return {**arguments, **self.options}

    def _blamed(self, text: str) -> str:
        """Return the keys that python-can's message mentions, or all keys if it mentions none."""
        keys = [f"options.{name}" if name in self.options else name for name in self._arguments()]
        named = [key for key in keys if key.removeprefix("options.") in text]
        return " / ".join(named or ["channel", *keys])


def shut_down(opened: can.BusABC) -> None:
    """Close an interface, which may have gone away already."""
    with suppress(can.CanError, OSError):
        opened.shutdown()


def _takes(interface: type[can.BusABC], option: str) -> bool:
    """Return whether an interface knows an option: as a parameter, or by its quoted name in the code of its class."""
    # python-can's interfaces accept any **kwargs and ignore what they do not know, so a misspelt option would do
    # nothing.  Some read known ones out of **kwargs, which only their source code shows.
    for base in interface.__mro__[:-1]:
        if option in inspect.signature(base).parameters:
            return True
        with suppress(OSError):  # The source code is not installed; the parameters alone must do.
            if f'"{option}"' in inspect.getsource(base):
                return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
