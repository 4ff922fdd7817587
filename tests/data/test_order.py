"""The order is a pure function of (seed, position) that permutes each epoch anew."""

from __future__ import annotations

import pickle
import time
import tracemalloc

import pytest

from opendino.data.order import Order
from opendino.errors import UsageError


@pytest.mark.parametrize("length", [1, 2, 3, 37, 256])
def test_every_epoch_is_another_permutation(length: int) -> None:
    order = Order(length, seed=5)
    epochs = [[order(epoch * length + place) for place in range(length)] for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    if length >= 37:
        assert len({tuple(epoch) for epoch in epochs}) == 4


def test_positions_do_not_depend_on_history() -> None:
    order = Order(100, seed=1)
    forward = [order(position) for position in range(250)]
    other = pickle.loads(pickle.dumps(Order(100, seed=1)))
    assert [other(position) for position in reversed(range(250))] == forward[::-1]
    assert [Order(100, seed=1)(position) for position in (0, 99, 100)] == [forward[0], forward[99], forward[100]]


def test_seeds_give_unrelated_orders() -> None:
    """An order of the next seed must not be the same order one epoch later."""
    length = 200
    first, second = Order(length, seed=0), Order(length, seed=1)
    assert [first(length + place) for place in range(length)] != [second(place) for place in range(length)]


def test_any_position_of_a_huge_source_is_at_hand() -> None:
    order = Order(10**9, seed=3)
    order(0)
    tracemalloc.start()
    started = time.process_time()
    indices = [order(position) for position in (7, 10**9 - 1, 10**9, 5 * 10**12)]
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(0 <= index < 10**9 for index in indices)
    assert seconds / 4 < 0.010
    assert peak < 100_000


def test_wrong_values_are_refused() -> None:
    for length in (0, 2**32 + 1):
        with pytest.raises(UsageError, match="length must be from 1"):
            Order(length, 0)
    with pytest.raises(UsageError, match="seed"):
        Order(5, -1)
    with pytest.raises(UsageError, match="position"):
        Order(5, 0)(-1)
