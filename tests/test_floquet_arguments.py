"""What the measurements on driven chains refuse, each before it runs a circuit."""

import math
from typing import Any

import pytest
import torch

from qlm.floquet import autocorrelators, draw_disorder, echo_correction, phase_diagram, spin_glass_order


def echo(disorder: Any, g: Any, periods: Any, **others: Any) -> Any:
    return echo_correction(disorder, g, periods, "statevector", **others)


EACH = {"autocorrelators": autocorrelators, "echo_correction": echo, "spin_glass_order": spin_glass_order}
ALL = {**EACH, "phase_diagram": lambda disorder, g, *others, **named: phase_diagram([g], disorder, *others, **named)}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("initial", ["01a1", "01", "0151", "01010"])
def test_an_initial_state_that_is_not_one_bit_per_spin_is_refused(name: str, initial: str) -> None:
    with pytest.raises(ValueError, match=f"expects initial of 4 bits, got '{initial}'; give one 0 or 1 per wire"):
        ALL[name](draw_disorder(4, 3), 0.9, 2, initial=initial)


@pytest.mark.parametrize("name", ALL)
def test_an_initial_state_that_is_no_string_and_no_period_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"expects initial as a string of bits, got \(0, 1, 0, 1\)"):
        ALL[name](draw_disorder(4, 3), 0.9, 2, initial=(0, 1, 0, 1))
    with pytest.raises(ValueError, match=f"{name} expects periods of at least 1, got 0"):
        ALL[name](draw_disorder(4, 3), 0.9, 0)
    with pytest.raises(TypeError, match=f"{name} expects an integer periods, got 2.5"):
        ALL[name](draw_disorder(4, 3), 0.9, 2.5)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("g", [torch.tensor([0.9, 1.0]), [0.9, 1.0], "a", None])
def test_several_kicks_and_no_number_are_sent_to_the_phase_diagram(name: str, g: Any) -> None:
    with pytest.raises(TypeError, match=rf"(?s){name} expects g as one number, got .*; .* use phase_diagram"):
        EACH[name](draw_disorder(4, 2), g, 2)


def test_one_kick_may_be_a_tensor_of_no_axes() -> None:
    drawn = draw_disorder(4, 2)
    g: Any = torch.tensor(0.9)
    found = autocorrelators(drawn, g, 3).sites.values
    torch.testing.assert_close(found, autocorrelators(drawn, 0.9, 3).sites.values, atol=0, rtol=0)


@pytest.mark.parametrize("g", [["a"], [0.9, None], "abc", None, [[0.9], [0.8, 0.7]], 0.9, [], [math.nan], [math.inf]])
def test_a_grid_of_no_numbers_is_refused(g: Any) -> None:
    with pytest.raises(ValueError, match=r"phase_diagram expects a sequence of values of g, got .*; pass for example"):
        phase_diagram(g, draw_disorder(4, 3), 2)
