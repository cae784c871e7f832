"""What is counted of the machine's own stalls."""

from __future__ import annotations

import pytest

from tests.support.stalls import worst_series


def test_stalls_in_a_row_on_one_core_add_up() -> None:
    row = [(1.0 + 0.008 * k, 0.005, "0") for k in range(6)]
    assert worst_series([]) == 0.0
    assert worst_series([*row, (1.02, 0.03, "1"), (2.0, 0.02, "0")]) == pytest.approx(0.03)
    assert worst_series([*row, (1.05, 0.02, "0")]) == pytest.approx(0.05)
    assert worst_series(row, within_s=0.02) == pytest.approx(0.015)
