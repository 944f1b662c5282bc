import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synface.train import schedules


def curve(total: int, per_epoch: int, **settings) -> list[float]:
    return [schedules.factor(k, total, per_epoch, **settings) for k in range(total)]


def test_step_schedule_of_cemiface():
    values = curve(40 * 10, 10, name="step", milestones=(26, 34), gamma=0.1)
    assert values[259] == 1.0
    assert values[260] == pytest.approx(0.1)
    assert values[339] == pytest.approx(0.1)
    assert values[340] == pytest.approx(0.01)


def test_polynomial_and_cosine_closed_forms():
    assert curve(8, 4, name="polynomial", power=2.0)[6] == pytest.approx((1 - 6 / 8) ** 2)
    assert curve(8, 4, name="cosine")[2] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert set(curve(5, 5, name="constant")) == {1.0}


def test_warm_up_is_linear_and_then_the_decay_starts_from_the_top():
    values = curve(100, 10, name="polynomial", power=1.0, warmup_epochs=2)
    assert values[:20] == pytest.approx([(k + 1) / 20 for k in range(20)])
    assert values[20] == 1.0
    assert values[60] == pytest.approx(0.5)


@given(
    st.sampled_from(sorted(schedules.SCHEDULES)),
    st.integers(1, 300),
    st.integers(1, 50),
    st.floats(0, 5),
)
def test_factors_stay_in_the_unit_interval_and_decay_never_rises(name, total, per_epoch, warmup):
    values = curve(total, per_epoch, name=name, warmup_epochs=warmup, milestones=(1, 3))
    assert all(0 <= v <= 1 for v in values)
    start = min(round(warmup * per_epoch), total)
    decay = values[start:]
    assert all(a >= b for a, b in itertools.pairwise(decay))


def test_margin_ramp():
    assert [schedules.ramp(k, 4) for k in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert schedules.ramp(0, 0) == 1.0
