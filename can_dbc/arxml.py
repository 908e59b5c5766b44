"""Loads ARXML databases with cantools, and carries out or names what cantools passes over in silence.  Pure.

cantools' loader of AUTOSAR system descriptions is extended in one class, `_Loader`, because these faults change values
and cantools does not report them:

- Computation methods of most categories give raw values (https://github.com/cantools/cantools/issues/461).
  `can_dbc/compu_method.py` reads them.
- A computation method at the I-SIGNAL (its network representation) is not looked for.
- Base types in one's complement, sign and magnitude, BCD or text are read as two's complement or plain integers.
- The position of a PDU within its frame is not added to the positions of its signals.
- One frame or signal that contradicts the schema refuses the whole file.

A signal that cannot be decoded and a frame that cannot be read are left out.  A note names each of them.
"""

from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cantools.database.can import Message, Signal
from cantools.database.can.formats import arxml
from cantools.database.can.formats.arxml.ecu_extract_loader import EcuExtractLoader
from cantools.database.can.formats.arxml.system_loader import SystemLoader
from cantools.database.errors import Error

from can_dbc.compu_method import Conversion, number, read
from can_dbc.noted import NotedDatabase

if TYPE_CHECKING:
    from cantools.database.can.internal_database import InternalDatabase

_UNSIGNED: Final = frozenset({"NONE", "BOOLEAN", "VOID", ""})
_SIGNED: Final = "2C"
_FLOAT: Final = "IEEE754"
_FLOAT_WHOLE: Final = 2**53
"""The largest whole number up to which float64 is exact.  Texts of IEEE floats are looked up by their whole part."""
_MOST_BYTES: Final = 65_535
"""The longest message.  cantools keeps a record of every bit, so an absurd length would exhaust memory."""
FAULTS: Final = (Error, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""The errors that cantools raises for a file that contradicts the schema.  It documents only its own `Error`."""


def parse(text: str) -> NotedDatabase:
    """Return the database in `text`.

    Raises: ElementTree.ParseError, or an error of cantools, if the text is not an AUTOSAR description.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - expat refuses entity bombs, and resolves no external entities
    notes: list[str] = []
    loaded: InternalDatabase
    if arxml.is_ecu_extract(root):
        loaded = EcuExtractLoader(root, False).load()
        notes.append(
            "the file is an ECU extract, which has no computation methods, so all values are raw integers; "
            "use the system description for physical values"
        )
    else:
        loaded = _Loader(root, notes).load()
    return NotedDatabase(loaded.messages, loaded.buses, notes)


class _Loader(SystemLoader):
    """Loads a system description as cantools does, with its own reading of conversions and base types.

    The overridden methods belong to the inside of cantools, whose version is therefore bounded in pyproject.toml.
    `tests/can_dbc/test_arxml.py` fails if one of them is no longer called.
    """

    def __init__(self, root: Element, notes: list[str]) -> None:
        super().__init__(root, False)
        self._notes = notes
        self._frame = ""
        self._bits = 0
        self._signal_problems: list[str] = []
        self._left_out: set[int] = set()
        self._kept: list[Signal] = []  # keeps the signals alive, so that no two of them share an id()
        self._multiplexed = 0
        self._i_signal: Element | None = None
        self._range = (0, 0)

    # These overrides skip content that changes no signal of a plan, because an error in it would refuse the file.

    def _load_senders_and_receivers(self, package_list: Element, messages: list[Message]) -> None:
        pass

    def _load_nodes(self, package_list: Element) -> list[Any]:
        return []

    def _load_e2e_properties(self, package_list: Element, messages: list[Message]) -> None:
        pass

    def _load_e2e_data_id_from_signal_group(self, pdu: Element, autosar_specifics: object) -> None:
        pass

    def _load_secured_properties(self, *_: object) -> None:
        pass

    def _load_arxml_init_value_string(self, i_signal: Element, system_signal: Element | None) -> None:
        pass

    def _load_arxml_invalid_int_value(self, i_signal: Element, system_signal: Element | None) -> None:
        pass

    def _load_package_messages(self, package_elem: Element) -> list[Message]:
        return [message for message in super()._load_package_messages(package_elem) if message is not None]

    def _load_message(self, bus_name: str, can_frame_triggering: Element) -> Message | None:
        named = self._get_unique_arxml_child(can_frame_triggering, "SHORT-NAME")
        self._frame = f"{bus_name}.{'?' if named is None else named.text}"
        try:
            self._frame = self._load_message_name(self._get_can_frame(can_frame_triggering))
            message: Message = super()._load_message(bus_name, can_frame_triggering)
            self._place_pdu(message, can_frame_triggering)
        except FAULTS as error:
            self._notes.append(
                f"{self._frame}: the frame of bus {bus_name} is left out, because {_reason(error)}; "
                "correct it in the database"
            )
            return None
        return message

    def _place_pdu(self, message: Message, can_frame_triggering: Element) -> None:
        """Move the signals of `message` to the place that its PDU has in the frame."""
        mapping = ["PDU-TO-FRAME-MAPPINGS", "&PDU-TO-FRAME-MAPPING"]
        frame = self._get_can_frame(can_frame_triggering)
        start = self._get_unique_arxml_child(frame, [*mapping, "START-POSITION"])
        bits = 0 if start is None else int(number(start.text))
        order = self._get_unique_arxml_child(frame, [*mapping, "PACKING-BYTE-ORDER"])
        if order is not None and order.text == "MOST-SIGNIFICANT-BYTE-FIRST" and bits % 8 == 7:
            bits -= 7  # The position is that of the most significant bit of the first byte.
        if not bits:
            return
        if bits % 8 or message.is_container:
            raise ValueError(f"its PDU starts at bit {bits} of the frame")
        for signal in message.signals:
            signal.start += bits
        message.refresh(strict=False)

    def _load_message_length(self, can_frame: Element) -> int:
        return _limited(super()._load_message_length(can_frame), _MOST_BYTES)

    def _load_signal_start_position(self, i_signal_to_i_pdu_mapping: Element) -> int:
        return _limited(super()._load_signal_start_position(i_signal_to_i_pdu_mapping), 8 * _MOST_BYTES)

    def _load_signal_length(self, i_signal: Element, system_signal: Element | None) -> int | None:
        length = super()._load_signal_length(i_signal, system_signal)
        return None if length is None else _limited(length, 8 * _MOST_BYTES)

    def _load_pdu(self, pdu: Element, frame_name: str, next_selector_idx: int) -> tuple[Any, ...]:
        length = self._get_unique_arxml_child(pdu, "LENGTH")
        if length is not None:
            _limited(int(number(length.text)), _MOST_BYTES)
        found = super()._load_pdu(pdu, frame_name, next_selector_idx)
        if self._multiplexed:
            # The multiplexed PDU around this one looks for its selector among the signals.
            return tuple(found)
        return (*found[:2], [signal for signal in found[2] if id(signal) not in self._left_out], *found[3:])

    def _load_multiplexed_pdu(self, pdu: Element, frame_name: str, next_selector_idx: int) -> tuple[Any, ...]:
        self._multiplexed += 1
        try:
            return tuple(super()._load_multiplexed_pdu(pdu, frame_name, next_selector_idx))
        finally:
            self._multiplexed -= 1

    def _load_signal(self, i_signal_to_i_pdu_mapping: Element) -> Signal | None:
        self._signal_problems = []
        self._i_signal = None
        name = "?"
        try:
            self._i_signal = self._get_i_signal(i_signal_to_i_pdu_mapping)
            if self._i_signal is not None:
                name = self._load_signal_name(self._i_signal)
            signal: Signal | None = super()._load_signal(i_signal_to_i_pdu_mapping)
        except FAULTS as error:
            self._notes.append(_left_out(self._frame, name, _reason(error)))
            return None
        if signal is not None and self._signal_problems:
            self._left_out.add(id(signal))
            self._kept.append(signal)
            self._notes.append(_left_out(self._frame, signal.name, " and ".join(self._signal_problems)))
        return signal

    def _load_signal_type(self, i_signal: Element) -> tuple[bool, bool]:
        """Return whether the internal values are signed, and whether they are IEEE floats."""
        encoding, base_type = _SIGNED, self._get_sw_base_type(i_signal)
        if base_type is None:
            encoding = ""
        else:
            found = self._get_unique_arxml_child(base_type, "BASE-TYPE-ENCODING")
            encoding = "" if found is None else (found.text or "").strip().upper()
            if found is None:
                self._signal_problems.append("its base type has no BASE-TYPE-ENCODING")
            elif encoding not in (*_UNSIGNED, _SIGNED, _FLOAT):
                self._signal_problems.append(f"the encoding {encoding} of its base type cannot be decoded")
        system_signal = self._get_unique_arxml_child(i_signal, "&SYSTEM-SIGNAL")
        bits = self._load_signal_length(i_signal, system_signal) or 0
        if encoding == _FLOAT:
            self._range = (-_FLOAT_WHOLE, _FLOAT_WHOLE)
        elif encoding == _SIGNED:
            self._range = (-(1 << max(bits - 1, 0)), (1 << max(bits - 1, 0)) - 1)
        else:
            self._range = (0, (1 << bits) - 1)
        return encoding == _SIGNED, encoding == _FLOAT

    def _load_system_signal(self, system_signal: Element, is_float: bool) -> tuple[Any, ...]:
        """Return minimum, maximum, scale, offset, texts, unit and comments of a signal."""
        method = self._method(system_signal)
        found = Conversion() if method is None else read(method, *self._range)
        if found.problem is not None and method is not None:
            named = self._get_unique_arxml_child(method, "SHORT-NAME")
            self._signal_problems.append(f"its computation method {named.text} {found.problem}")
        name = self._load_signal_name(self._i_signal)
        self._notes.extend(f"{self._frame}.{name}: {note}" for note in found.notes)
        unit = self._load_system_signal_unit(system_signal, method)
        comments = self._load_comments(system_signal)
        return found.minimum, found.maximum, found.scale, found.offset, found.texts or None, unit, comments

    def _method(self, system_signal: Element) -> Element | None:
        """Return the computation method of a signal: that of the system signal, or else that of the I-SIGNAL."""
        physical: Element | None = self._get_compu_method(system_signal)
        network: Element | None = self._get_unique_arxml_child(
            self._i_signal,
            [
                "&NETWORK-REPRESENTATION-PROPS",
                "SW-DATA-DEF-PROPS-VARIANTS",
                "&SW-DATA-DEF-PROPS-CONDITIONAL",
                "&COMPU-METHOD",
            ],
        )
        if physical is not None and network is not None and read(physical, *self._range) != read(network, *self._range):
            self._signal_problems.append("its system signal and its network representation have different conversions")
        return network if physical is None else physical


def _limited(size: int, most: int) -> int:
    if not 0 <= size <= most:
        raise ValueError(f"a length or position is {size}, and the limit is {most}")
    return size


def _left_out(frame: str, signal: str, why: str) -> str:
    return f"{frame}.{signal}: the signal is left out, because {why}; correct it in the database"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or f"cantools fails with {type(error).__name__}"
