"""Writes small ARXML system descriptions for tests, with a choice of conversions, base types, frames and clusters."""

from dataclasses import dataclass, field

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<AUTOSAR xmlns="http://autosar.org/schema/r4.0"><AR-PACKAGES><AR-PACKAGE>'
)


@dataclass
class Field:
    """A signal with its system signal, base type and computation method."""

    name: str
    start: int = 0
    bits: int = 8
    encoding: str | None = "NONE"
    method: str = ""
    network_method: str = ""
    big: bool = False


@dataclass
class Frame:
    name: str
    can_id: int
    fields: list[Field] = field(default_factory=list)
    length: int = 8
    pdu_start: int = 0


def method(scales: str, category: str = "LINEAR", direction: str = "INTERNAL-TO-PHYS", default: str = "") -> str:
    """Return the inside of a COMPU-METHOD."""
    inner = f"<COMPU-SCALES>{scales}</COMPU-SCALES>{default}"
    return f"<CATEGORY>{category}</CATEGORY><COMPU-{direction}>{inner}</COMPU-{direction}>"


def limits(low: object = None, high: object = None, kinds: tuple[str, str] = ("CLOSED", "CLOSED")) -> str:
    first = "" if low is None else f'<LOWER-LIMIT INTERVAL-TYPE="{kinds[0]}">{low}</LOWER-LIMIT>'
    last = "" if high is None else f'<UPPER-LIMIT INTERVAL-TYPE="{kinds[1]}">{high}</UPPER-LIMIT>'
    return first + last


def line(*top: object, bottom: tuple[object, ...] = (1,), within: str = "") -> str:
    """Return a scale with the quotient of two polynomials, lowest power first."""
    upper, lower = ("".join(f"<V>{v}</V>" for v in values) for values in (top, bottom))
    quotient = f"<COMPU-NUMERATOR>{upper}</COMPU-NUMERATOR><COMPU-DENOMINATOR>{lower}</COMPU-DENOMINATOR>"
    return f"<COMPU-SCALE>{within}<COMPU-RATIONAL-COEFFS>{quotient}</COMPU-RATIONAL-COEFFS></COMPU-SCALE>"


def text(words: str, within: str, more: str = "") -> str:
    return f"<COMPU-SCALE>{more}{within}<COMPU-CONST><VT>{words}</VT></COMPU-CONST></COMPU-SCALE>"


def constant(value: object, within: str) -> str:
    return f"<COMPU-SCALE>{within}<COMPU-CONST><V>{value}</V></COMPU-CONST></COMPU-SCALE>"


def arxml(*frames: Frame) -> bytes:
    """Return a description with one cluster, `Drive`, that has `frames`."""
    return arxml_of_buses({"Drive": list(frames)})


def arxml_of_buses(buses: dict[str, list[Frame]]) -> bytes:
    """Return a description with one cluster for each bus; frames of different buses must have different names."""
    parts = [_cluster(bus, frames) for bus, frames in buses.items()]
    parts += [_frame(frame) for frames in buses.values() for frame in frames]
    body = "\n".join(parts)
    tail = "</ELEMENTS></AR-PACKAGE></AR-PACKAGES></AUTOSAR>"
    return f"{HEAD}<SHORT-NAME>Top</SHORT-NAME><ELEMENTS>\n{body}\n{tail}".encode()


def _cluster(bus: str, frames: list[Frame]) -> str:
    triggers = "".join(
        f"<CAN-FRAME-TRIGGERING><SHORT-NAME>T_{f.name}</SHORT-NAME>"
        f'<FRAME-REF DEST="CAN-FRAME">/Top/{f.name}</FRAME-REF>'
        f"<CAN-ADDRESSING-MODE>{'EXTENDED' if f.can_id > 0x7FF else 'STANDARD'}</CAN-ADDRESSING-MODE>"
        f"<IDENTIFIER>{f.can_id}</IDENTIFIER></CAN-FRAME-TRIGGERING>"
        for f in frames
    )
    return (
        f"<CAN-CLUSTER><SHORT-NAME>{bus}</SHORT-NAME><CAN-CLUSTER-VARIANTS><CAN-CLUSTER-CONDITIONAL><PHYSICAL-CHANNELS>"
        f"<CAN-PHYSICAL-CHANNEL><SHORT-NAME>Ch_{bus}</SHORT-NAME><FRAME-TRIGGERINGS>{triggers}</FRAME-TRIGGERINGS>"
        "</CAN-PHYSICAL-CHANNEL></PHYSICAL-CHANNELS></CAN-CLUSTER-CONDITIONAL></CAN-CLUSTER-VARIANTS></CAN-CLUSTER>"
    )


def _frame(frame: Frame) -> str:
    order = {False: "MOST-SIGNIFICANT-BYTE-LAST", True: "MOST-SIGNIFICANT-BYTE-FIRST"}
    mappings = "".join(
        f"<I-SIGNAL-TO-I-PDU-MAPPING><SHORT-NAME>M_{f.name}</SHORT-NAME>"
        f'<I-SIGNAL-REF DEST="I-SIGNAL">/Top/{f.name}</I-SIGNAL-REF>'
        f"<PACKING-BYTE-ORDER>{order[f.big]}</PACKING-BYTE-ORDER><START-POSITION>{f.start}</START-POSITION>"
        "</I-SIGNAL-TO-I-PDU-MAPPING>"
        for f in frame.fields
    )
    return (
        f"<CAN-FRAME><SHORT-NAME>{frame.name}</SHORT-NAME><FRAME-LENGTH>{frame.length}</FRAME-LENGTH>"
        f"<PDU-TO-FRAME-MAPPINGS><PDU-TO-FRAME-MAPPING><SHORT-NAME>P_{frame.name}</SHORT-NAME>"
        f"<PACKING-BYTE-ORDER>{order[False]}</PACKING-BYTE-ORDER>"
        f'<PDU-REF DEST="I-SIGNAL-I-PDU">/Top/{frame.name}Pdu</PDU-REF>'
        f"<START-POSITION>{frame.pdu_start}</START-POSITION>"
        "</PDU-TO-FRAME-MAPPING></PDU-TO-FRAME-MAPPINGS></CAN-FRAME>"
        f"<I-SIGNAL-I-PDU><SHORT-NAME>{frame.name}Pdu</SHORT-NAME><LENGTH>{frame.length}</LENGTH>"
        f"<I-SIGNAL-TO-PDU-MAPPINGS>{mappings}</I-SIGNAL-TO-PDU-MAPPINGS></I-SIGNAL-I-PDU>"
        + "".join(map(_field, frame.fields))
    )


def _field(f: Field) -> str:
    properties = "SW-DATA-DEF-PROPS-VARIANTS><SW-DATA-DEF-PROPS-CONDITIONAL"
    end = "</SW-DATA-DEF-PROPS-CONDITIONAL></SW-DATA-DEF-PROPS-VARIANTS>"
    encoding = "" if f.encoding is None else f"<BASE-TYPE-ENCODING>{f.encoding}</BASE-TYPE-ENCODING>"
    own, network = (
        f'<COMPU-METHOD-REF DEST="COMPU-METHOD">/Top/{f.name}{end_}</COMPU-METHOD-REF>' if inside else ""
        for end_, inside in (("Conv", f.method), ("Net", f.network_method))
    )
    return (
        f"<I-SIGNAL><SHORT-NAME>{f.name}</SHORT-NAME><LENGTH>{f.bits}</LENGTH>"
        f"<NETWORK-REPRESENTATION-PROPS><{properties}>"
        f'<BASE-TYPE-REF DEST="SW-BASE-TYPE">/Top/{f.name}Base</BASE-TYPE-REF>{network}{end}'
        "</NETWORK-REPRESENTATION-PROPS>"
        f'<SYSTEM-SIGNAL-REF DEST="SYSTEM-SIGNAL">/Top/{f.name}Sys</SYSTEM-SIGNAL-REF></I-SIGNAL>'
        f"<SYSTEM-SIGNAL><SHORT-NAME>{f.name}Sys</SHORT-NAME><PHYSICAL-PROPS><{properties}>{own}{end}"
        "</PHYSICAL-PROPS></SYSTEM-SIGNAL>"
        f"<SW-BASE-TYPE><SHORT-NAME>{f.name}Base</SHORT-NAME><BASE-TYPE-SIZE>{f.bits}</BASE-TYPE-SIZE>{encoding}"
        "</SW-BASE-TYPE>" + _method(f"{f.name}Conv", f.method) + _method(f"{f.name}Net", f.network_method)
    )


def _method(name: str, inside: str) -> str:
    return f"<COMPU-METHOD><SHORT-NAME>{name}</SHORT-NAME>{inside}</COMPU-METHOD>" if inside else ""
