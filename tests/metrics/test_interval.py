import pytest

from lit_rl.metrics import seed_interval
from lit_rl.metrics.interval import _t_975


def test_golden_values() -> None:
    interval = seed_interval([0.61, 0.64, 0.58])
    assert interval.mean == pytest.approx(0.61)
    assert interval.sd == pytest.approx(0.03)
    assert interval.half_width == pytest.approx(0.074524, abs=1e-6)  # 4.302653 * 0.03 / sqrt(3)
    assert str(interval) == "0.610 ± 0.075"


def test_one_seed_has_no_interval() -> None:
    interval = seed_interval([0.5])
    assert (interval.mean, interval.sd, interval.half_width) == (0.5, None, None)
    assert str(interval) == "0.500"


def test_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        seed_interval([])


def test_the_expansion_continues_the_table() -> None:
    assert _t_975(31) == pytest.approx(2.039513, abs=1e-5)
    assert _t_975(120) == pytest.approx(1.979930, abs=1e-5)
    assert all(_t_975(n) > _t_975(n + 1) for n in range(1, 60))
