"""Writes messages as the text of a DBC.  Pure.

Limits are written as 0|0, which means none: FleetWise does not limit what a decoder gives.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fleet.fleetwise.decoders import Message, Signal

_HEAD: Final = 'VERSION ""\n\nNS_ :\n\nBS_:\n\nBU_:\n'
_EXTENDED_FLAG: Final = 0x8000_0000
"""Bit 31 of an id in a DBC says that frames have 29-bit ids."""


def dbc_text(messages: Sequence[Message], units: Mapping[str, str]) -> str:
    """Return the DBC of `messages`.  `units` has the units of signals by their fully qualified names."""
    lines = [_HEAD]
    for message in messages:
        lines.append(f"BO_ {_id(message)} {message.name}: {message.size_bytes} Vector__XXX")
        lines += [_signal_line(signal, units.get(signal.fqn, "")) for signal in message.signals]
        lines.append("")
    for message in messages:
        lines += [
            f"SIG_VALTYPE_ {_id(message)} {signal.name} : {1 if signal.bits == 32 else 2};"
            for signal in message.signals
            if signal.floating
        ]
    return "\n".join(lines) + "\n"


def _id(message: Message) -> int:
    return message.can_id | _EXTENDED_FLAG if message.extended else message.can_id


def _signal_line(signal: Signal, unit: str) -> str:
    order, sign = int(not signal.big_endian), "-" if signal.signed or signal.floating else "+"
    spelt = "".join(each for each in unit if each.isprintable() and each != '"')
    return (
        f" SG_ {signal.name} : {signal.start}|{signal.bits}@{order}{sign} "
        f'({_number(signal.factor)},{_number(signal.offset)}) [0|0] "{spelt}" Vector__XXX'
    )


def _number(value: float) -> str:
    whole = int(value)
    return str(whole) if whole == value and abs(whole) < 2**53 else repr(value)
