"""Open CAN interfaces through python-can.

Wrong settings raise Permanent.  A missing interface raises Transient.
"""

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
    """Opens one interface according to its settings.  The agent only receives, so this class has no way to send.

    If `bitrate` is 0, no bit rate is passed to python-can.  `options` are passed to python-can unchanged.
    """

    interface: str
    channel: str
    bitrate: int = 0
    _: KW_ONLY
    fd: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def open(self, bus: str) -> can.BusABC:
        """Open the interface.  Error messages name `bus`, the bus that the interface delivers.

        Raises: Permanent if a setting is wrong; Transient if the interface cannot be opened for any other reason, for
        example because it is missing.
        """
        where = f"source {bus}"
        arguments = self._arguments()
        try:
            # Without ignore_config, a python-can.conf on the machine would silently override the settings.
            opened = can.Bus(self.channel, self.interface, ignore_config=True, **arguments)
        except NotImplementedError as error:
            known = ", ".join(sorted(can.VALID_INTERFACES))
            raise Permanent(
                f"{where}: interface = {self.interface!r} cannot be used: {error}; install the packages that it needs, "
                f"or choose one of {known}"
            ) from error
        except (can.CanError, OSError, TypeError, ValueError) as error:
            # python-can wraps the errors of drivers.  A wrong value stays wrong, but any other error may go away.
            if any(isinstance(cause, TypeError | ValueError) for cause in _causes(error)):
                raise Permanent(f"{where}: {self._blamed(str(error))}: {error}; correct the setting") from error
            raise Transient(
                f"{where}: {self.interface} {self.channel} cannot be opened: {error}; connect it, or correct `channel`"
            ) from error
        unknown = [option for option in self.options if not _takes(type(opened), option)]
        if unknown:
            shut_down(opened)
            raise Permanent(
                f"{where}: options.{unknown[0]}: python-can's {self.interface} has no such option; remove it"
            )
        return opened

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments for python-can's constructor.  `options` override all other arguments."""
        arguments: dict[str, Any] = {"receive_own_messages": False}
        if self.interface == "slcan":
            # Without this argument, a serial adapter acknowledges frames on the bus.  SocketCAN interfaces need no such
            # argument here, because the system sets them up.
            arguments["listen_only"] = True
        if self.bitrate:
            arguments["bitrate"] = self.bitrate
        if self.fd:
            arguments["fd"] = True
        return {**arguments, **self.options}

    def _blamed(self, text: str) -> str:
        """Return the keys of the settings that the error message `text` mentions, or all keys if it mentions none."""
        # The agent sets the other arguments itself, and agent.toml has no keys for them.
        settable = [name for name in self._arguments() if name in self.options or name in ("bitrate", "fd")]
        keys = [f"options.{name}" if name in self.options else name for name in settable]
        named = [key for key in keys if key.removeprefix("options.") in text]
        return " / ".join(named or ["channel", *keys])


def shut_down(opened: can.BusABC) -> None:
    """Close an interface, even if it has gone away already."""
    with suppress(can.CanError, OSError):
        opened.shutdown()


def _takes(interface: type[can.BusABC], option: str) -> bool:
    """Return whether a class of python-can accepts an option.

    The option must be a parameter of the class, or its quoted name must occur in the source code of the class.
    """
    # python-can's interfaces accept any **kwargs and ignore unknown ones, so a misspelt option would do nothing.  Some
    # interfaces read known options out of **kwargs, which only their source code shows.
    for base in interface.__mro__[:-1]:
        if option in inspect.signature(base).parameters:
            return True
        with suppress(OSError):  # The source code is not installed, so the parameters must suffice.
            if f'"{option}"' in inspect.getsource(base):
                return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
