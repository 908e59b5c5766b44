"""A vehicle may fill the days that a real car fills, and not every day of two centuries."""

from fleet.receiving.days import MOST, Days
from fleet.receiving.message import Message
from fleet.receiving.store import Store
from tests.fleet.receiving import hostile
from tests.fleet.vehicles import Vehicle, numbers

DAY_US = 86_400 * 1_000_000


def test_a_vehicle_that_was_offline_for_two_months_fills_each_of_its_days() -> None:
    days = Days()
    assert all(days.allow("a", 20_000 + day % 60, now_s=0) for day in range(10_000))


def test_a_vehicle_that_names_ever_new_days_is_held_back_and_another_is_not() -> None:
    days = Days()
    assert sum(days.allow("a", day, now_s=0) for day in range(10_000)) == MOST
    assert days.allow("a", 5, now_s=0)  # a day that it has filled before
    assert days.allow("b", 5, now_s=0)
    assert days.allow("a", 9_999, now_s=3_601)


def test_batches_beyond_the_days_of_a_vehicle_get_no_answer(vehicle: Vehicle, store: Store) -> None:
    messages = []
    for seq in range(1, MOST + 11):
        batch = hostile.one_signal(1)
        batch.start_us = seq * DAY_US
        batch.end_us = batch.start_us + 1
        messages.append(Message(vehicle.topic, vehicle.sealed(seq, hostile.body(batch))))
    store.take_in(messages)
    (answer,) = store.land()
    assert numbers(vehicle.verify(answer.payload).stored) == tuple(range(1, MOST + 1))
    assert store.totals.unanswered == 10
