"""Collects the decoders and network interfaces of decoder manifests, which may come in many files.  Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from fleet.fleetwise.decoders import Decoder, DecoderError, Message, check_layout, messages_of
from fleet.fleetwise.fields import CanSignal, NetworkInterface, SignalDecoder
from fleet.fleetwise.findings import Remarks
from fleet.fleetwise.forms import DecoderManifestForm
from fleet.fleetwise.signals import WHY_NOT, Source

UNNAMED: Final = "decoders"
"""The name of the manifest of decoders that come without a name."""


class Manifest:
    """One decoder manifest, from all its files."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._decoders: dict[str, SignalDecoder] = {}
        self._places: dict[str, str] = {}
        self._interfaces: dict[str, NetworkInterface] = {}
        self._refused: set[str] = set()

    def add(self, form: DecoderManifestForm, file: str, remarks: Remarks) -> None:
        """Add what one document says.  Updates replace earlier decoders, and removals remove them."""
        for field, interfaces in (
            ("networkInterfaces", form.network_interfaces),
            ("networkInterfacesToAdd", form.network_interfaces_to_add),
            ("networkInterfacesToUpdate", form.network_interfaces_to_update),
        ):
            for index, interface in enumerate(interfaces or ()):
                self._add_interface(interface, f"{field}[{index}]", remarks)
        for field, decoders in (
            ("signalDecoders", form.signal_decoders),
            ("signalDecodersToAdd", form.signal_decoders_to_add),
            ("signalDecodersToUpdate", form.signal_decoders_to_update),
        ):
            for index, decoder in enumerate(decoders or ()):
                key = f"{field}[{index}]"
                if field.endswith("Update"):
                    self._decoders.pop(decoder.fully_qualified_name, None)
                    self._refused.discard(decoder.fully_qualified_name)
                self._add_decoder(decoder, key, file, remarks)
        for fqn in form.signal_decoders_to_remove or ():
            self._decoders.pop(fqn, None)
        for interface_id in form.network_interfaces_to_remove or ():
            self._interfaces.pop(interface_id, None)

    def sources(self) -> dict[str, Source]:
        """Return where each signal of the manifest comes from."""
        found = {fqn: Source(decoder.type) for fqn, decoder in self._decoders.items()}
        return found | dict.fromkeys(self._refused, Source.REFUSED)

    def buses(self) -> dict[str, tuple[Message, ...]]:
        """Return the messages of each bus, by its name in the vehicle.

        A bus without a network interface has the id of its interface as its name.
        """
        of_bus: dict[str, list[Decoder]] = {}
        for fqn, layout, interface_id in self._can():
            of_bus.setdefault(self._bus(interface_id), []).append(Decoder(fqn, layout))
        return {bus: messages_of(decoders) for bus, decoders in of_bus.items()}

    def unknown_interfaces(self) -> list[str]:
        """Return the ids of the interfaces of CAN decoders that no network interface describes."""
        return sorted({interface_id for _, _, interface_id in self._can() if interface_id not in self._interfaces})

    def _can(self) -> Iterator[tuple[str, CanSignal, str]]:
        for fqn, decoder in self._decoders.items():
            if decoder.type == Source.CAN.value and decoder.can_signal is not None:
                yield fqn, decoder.can_signal, decoder.interface_id

    def _bus(self, interface_id: str) -> str:
        interface = self._interfaces.get(interface_id)
        return interface.can_interface.name if interface and interface.can_interface else interface_id

    def _add_interface(self, interface: NetworkInterface, key: str, remarks: Remarks) -> None:
        known = self._interfaces.setdefault(interface.interface_id, interface)
        if known != interface and not key.startswith("networkInterfacesToUpdate"):
            remarks.add(
                key, f"interface {interface.interface_id} was described otherwise before; the first one is used"
            )
        elif known != interface:
            self._interfaces[interface.interface_id] = interface
        if interface.type == "CAN_INTERFACE" and interface.can_interface is None:
            remarks.add(key, "the interface has no canInterface, so its bus is called after its id")
        elif interface.type != "CAN_INTERFACE":
            remarks.add(key, _WHY_NO_INTERFACE[interface.type])

    def _add_decoder(self, decoder: SignalDecoder, key: str, file: str, remarks: Remarks) -> None:
        fqn = decoder.fully_qualified_name
        earlier = self._decoders.get(fqn)
        if earlier is not None:
            if earlier != decoder:
                remarks.add(
                    key, f"{fqn} has another decoder in {self._places[fqn]}, which is used; this one is refused"
                )
            return
        if decoder.type != Source.CAN.value:
            remarks.add(key, f"{fqn} is refused: {WHY_NOT[Source(decoder.type)]}")
        elif (why := _fault(decoder.can_signal)) is not None:
            remarks.add(f"{key}.{why[0]}", f"{fqn} is refused: {why[1]}")
            self._refused.add(fqn)
            return
        self._decoders[fqn] = decoder
        self._places[fqn] = f"{file}: {key}"


_WHY_NO_INTERFACE: Final[Mapping[str, str]] = {
    "OBD_INTERFACE": "this version sends no diagnostic requests (OBD), so the interface is not used",
    "VEHICLE_MIDDLEWARE": "this version does not read ROS 2, so the interface is not used",
    "CUSTOM_DECODING_INTERFACE": "custom decoders have no counterpart here, so the interface is not used",
}


def _fault(layout: CanSignal | None) -> tuple[str, str] | None:
    """Return field and reason if a DBC cannot describe a CAN decoder."""
    if layout is None:
        return "canSignal", "a decoder of the type CAN_SIGNAL needs canSignal"
    try:
        check_layout(layout)
    except DecoderError as error:
        return f"canSignal.{error.field}", str(error)
    return None


class Manifests:
    """All decoder manifests.  Decoders without a name belong to the one manifest that has a name, if there is one."""

    def __init__(self) -> None:
        self._named: dict[str, Manifest] = {}
        self._unnamed: Manifest | None = None

    def manifest(self, name: str | None) -> Manifest:
        """Return the manifest with this name, which may be new."""
        if name is not None:
            return self._named.setdefault(name, Manifest(name))
        if len(self._named) == 1:
            return next(iter(self._named.values()))
        if self._unnamed is None:
            self._unnamed = Manifest(UNNAMED)
        return self._unnamed

    def all(self) -> list[Manifest]:
        """Return all manifests."""
        return [*self._named.values(), *([] if self._unnamed is None else [self._unnamed])]
