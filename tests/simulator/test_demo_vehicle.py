"""The databases of the demonstration vehicle have no defect, and are as varied as those of real cars."""

from pathlib import Path

import cantools
import pytest
from cantools.database.can import Database, Message

DBC = Path(__file__).parents[2] / "can_dbc" / "dbc"
DATABASES = {path.stem: cantools.database.load_file(path, strict=True) for path in sorted(DBC.glob("*.dbc"))}
MESSAGES = [message for database in DATABASES.values() for message in database.messages]
SIGNALS = [signal for message in MESSAGES for signal in message.signals]


def test_there_are_enough_messages_and_signals() -> None:
    assert len(MESSAGES) >= 25
    assert len(SIGNALS) >= 150
    assert sum(signal.multiplexer_ids is None for signal in SIGNALS) >= 150


def test_every_construct_of_real_databases_occurs() -> None:
    assert sum(message.is_multiplexed() for message in MESSAGES) >= 3
    big_endian = {m.name for m in MESSAGES if all(s.byte_order == "big_endian" for s in m.signals)}
    assert len(big_endian) >= 5
    assert any(signal.is_signed for signal in SIGNALS)
    assert any(signal.is_float and signal.length == 32 for signal in SIGNALS)
    assert sum(signal.choices is not None for signal in SIGNALS) >= 10
    assert any(min(signal.choices) < 0 for signal in SIGNALS if signal.choices)
    assert sum(message.is_extended_frame for message in MESSAGES) >= 2
    assert [message.length for message in MESSAGES if message.is_fd] == [64]


def test_a_multiplexer_below_another_and_one_of_several_values_occur() -> None:
    message = DATABASES["demo_powertrain"].get_message_by_name("EmissionDiagnostics")
    assert message.get_signal_by_name("KnockRetard").multiplexer_signal == "MonitorPage"
    assert message.get_signal_by_name("MonitorPage").multiplexer_signal == "DiagnosticBlock"
    assert message.get_signal_by_name("OperatingHours").multiplexer_ids == [3, 4, 5]


@pytest.mark.parametrize("database", DATABASES.values(), ids=DATABASES)
def test_names_and_identifiers_are_unique(database: Database) -> None:
    assert len({message.name for message in database.messages}) == len(database.messages)
    assert len({(m.frame_id, m.is_extended_frame) for m in database.messages}) == len(database.messages)


def test_message_names_are_unique_across_the_vehicle() -> None:
    assert len({message.name for message in MESSAGES}) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_message_is_described_and_cyclic(message: Message) -> None:
    assert message.comment
    assert message.senders
    assert message.cycle_time in {10, 20, 50, 100, 200, 500, 1000}
    for signal in message.signals:
        assert signal.receivers


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_ranges_fit_the_bits(message: Message) -> None:
    for signal in message.signals:
        if signal.is_float:
            continue
        low, high = (
            (-(1 << signal.length - 1), (1 << signal.length - 1) - 1)
            if signal.is_signed
            else (0, (1 << signal.length) - 1)
        )
        scale, offset = signal.conversion.scale, signal.conversion.offset
        assert low * scale + offset <= signal.minimum + 1e-9
        assert signal.minimum < signal.maximum
        assert signal.maximum <= high * scale + offset + 1e-9


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_checksums_take_the_last_byte_and_come_with_a_counter(message: Message) -> None:
    names = {signal.name: signal for signal in message.signals}
    checksums = [names[name] for name in ("Crc8", "Checksum") if name in names]
    assert len(checksums) == ("AliveCounter" in names)
    for checksum in checksums:
        big_endian = checksum.byte_order == "big_endian"
        assert checksum.length == 8
        assert checksum.start == 8 * (message.length - 1) + (7 if big_endian else 0)


def test_about_a_thousand_frames_a_second() -> None:
    assert 1_000 <= sum(1_000 / message.cycle_time for message in MESSAGES) <= 1_500
