"""What is measured on driven chains: exact facts, definitions, errors, controls, and noise undone by echoes."""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from backends.quimb_mps import QuimbMPS
from circuits import Z
from circuits.library.floquet import kicked_ising
from qlm.floquet import (
    Disorder,
    Measured,
    autocorrelators,
    draw,
    draw_disorder,
    echo_correction,
    phase_diagram,
    prethermal_control,
    spectrum,
    spin_glass_order,
    subharmonic_weight,
)


def exact(values: Any) -> Measured:
    """Values without errors."""
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return Measured(tensor, torch.zeros_like(tensor), torch.zeros_like(tensor))


def test_disorder_lies_in_its_ranges_and_repeats() -> None:
    drawn = draw_disorder(6, 400, seed=1)
    assert drawn.phi.shape == (400, 5)
    assert drawn.h.shape == (400, 6)
    for values, low, high in ((drawn.phi, -1.5, -0.5), (drawn.h, -1.0, 1.0)):
        share = (values / math.pi - low) / (high - low)
        assert 0 <= float(share.min()) < 0.01
        assert 0.99 < float(share.max()) <= 1
        assert float(share.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * share.numel()))
    assert torch.equal(draw_disorder(6, 400, seed=1).phi, drawn.phi)
    assert not torch.equal(draw_disorder(6, 400, seed=2).phi, drawn.phi)
    control = draw_disorder(6, 400, seed=1, phi=-0.4)
    assert torch.equal(control.h, drawn.h)
    assert torch.equal(control.phi, torch.full((400, 5), -0.4))


def test_inputs_are_those_of_the_circuit_instances_innermost() -> None:
    drawn = draw_disorder(3, 2, dtype=torch.float64)
    inputs = drawn.inputs(torch.tensor([0.8, 0.9]))
    assert inputs.shape == (4, kicked_ising(3, 1).n_inputs)
    assert inputs[:, 0].tolist() == pytest.approx([0.8, 0.8, 0.9, 0.9])
    assert torch.equal(inputs[3], torch.cat((inputs[2, :1], drawn.phi[1], drawn.h[1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocorrelators_against_dense_matrices(dtype: torch.dtype) -> None:
    drawn = draw_disorder(4, 3, dtype=dtype)
    found = autocorrelators(drawn, 0.85, 3, initial="0110")
    assert found.sites.values.dtype == dtype
    signs = [1, -1, -1, 1]
    inputs = drawn.inputs(0.85).double().numpy()
    for t in range(4):
        circuit = kicked_ising(4, t, initial="0110")
        each = oracles.expectations(circuit, inputs[:, : circuit.n_inputs], oracles.NOTHING, [Z(k) for k in range(4)])
        tolerance = 1e-12 if dtype == torch.float64 else 3e-6
        np.testing.assert_allclose(found.sites.values[:, t], each * signs, atol=tolerance)
        np.testing.assert_allclose(found.bulk.values[:, t], (each * signs)[:, 1:3].mean(1), atol=tolerance)


def test_large_batches_are_run_in_parts_without_a_seam() -> None:
    drawn = draw_disorder(12, 70)
    whole = autocorrelators(drawn, 0.9, 2).bulk.values
    parts = [autocorrelators(Disorder(drawn.phi[k : k + 35], drawn.h[k : k + 35]), 0.9, 2).bulk.values for k in (0, 35)]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-6, rtol=0)


def test_too_short_chains_are_refused() -> None:
    with pytest.raises(ValueError, match="bulk autocorrelator expects at least 3 spins, got 2"):
        autocorrelators(draw_disorder(2, 3), 1.0, 2)
    with pytest.raises(ValueError, match="spin-glass order expects at least 4 spins, got 3"):
        spin_glass_order(draw_disorder(3, 3), 1.0, 2)
    with pytest.raises(ValueError, match="spin-glass order expects at least 4 spins, got 3"):
        phase_diagram([0.9], draw_disorder(3, 3), 2)
    with pytest.raises(ValueError, match="n_wires of at least 2, got 1"):
        draw_disorder(1, 3)
    with pytest.raises(ValueError, match="instances of at least 1, got 0"):
        draw_disorder(4, 0)


@pytest.mark.parametrize("periods", [4, 7, 20])
def test_weight_is_one_for_period_doubling_and_the_geometric_sum_for_free_spins(periods: int) -> None:
    times = torch.arange(periods + 1, dtype=torch.float64)
    assert subharmonic_weight(exact((-1.0) ** times)).values.item() == pytest.approx(1)
    assert subharmonic_weight(exact(torch.ones(periods + 1))).values.item() == pytest.approx(-(periods % 2) / periods)
    free = subharmonic_weight(exact(torch.cos(math.pi * 0.9 * times)))
    assert free.values.item() == pytest.approx(np.mean([math.cos(0.1 * math.pi * t) for t in range(1, periods + 1)]))


@pytest.mark.parametrize("periods", [8, 9])
def test_spectrum_is_the_discrete_fourier_sum_and_ends_at_the_weight(periods: int) -> None:
    torch.manual_seed(0)
    curve = torch.rand(3, periods + 1, dtype=torch.float64)
    found = spectrum(exact(curve))
    times = np.arange(1 + periods % 2, periods + 1)
    assert found.frequencies.tolist() == pytest.approx([k / 8 for k in range(5)])
    for k, frequency in enumerate(found.frequencies.tolist()):
        sums = (curve.numpy()[:, times] * np.exp(-2j * np.pi * frequency * times)).sum(1) / len(times)
        np.testing.assert_allclose(found.amplitudes.values[:, k], np.abs(sums), atol=1e-12)
    if periods == 8:
        np.testing.assert_allclose(found.amplitudes.values[:, -1], subharmonic_weight(exact(curve)).values.abs())


def test_a_free_spin_peaks_at_its_own_frequency_and_a_locked_one_at_half() -> None:
    times = torch.arange(41, dtype=torch.float64)
    free = spectrum(exact(torch.cos(math.pi * 0.8 * times)))
    assert free.frequencies[free.amplitudes.values.argmax()].item() == pytest.approx(0.4)
    drawn = draw_disorder(8, 10)
    locked = spectrum(autocorrelators(drawn, 0.95, 40).bulk.ensemble_mean())
    assert locked.frequencies[locked.amplitudes.values.argmax()].item() == pytest.approx(0.5)


@pytest.mark.parametrize("function", [subharmonic_weight, spectrum])
def test_without_periods_there_is_no_spectrum(function: Any) -> None:
    with pytest.raises(ValueError, match=r"expects at least \d periods?, got 0"):
        function(exact([1.0]))


def test_glass_order_is_its_sum_over_pairs_of_the_bulk() -> None:
    drawn = draw_disorder(5, 2, dtype=torch.float64)
    found = spin_glass_order(drawn, 0.8, 2, initial="01101")
    pairs = [(i, j) for i in (1, 2, 3) for j in (1, 2, 3) if i != j]
    circuit = kicked_ising(5, 2, initial="01101")
    words = oracles.expectations(circuit, drawn.inputs(0.8).numpy(), oracles.NOTHING, [Z(i) @ Z(j) for i, j in pairs])
    np.testing.assert_allclose(found.values[:, 2], (words**2).sum(1) / 3, atol=1e-12)
    torch.testing.assert_close(found.values[:, 0], torch.full((2,), 2.0, dtype=torch.float64))


def test_glass_order_from_shots_has_no_bias() -> None:
    """Deep in the disordered phase the squares of pure noise would average 1 / shots each; 30 seeds see none."""
    drawn = draw_disorder(4, 4, dtype=torch.float64)
    truth = spin_glass_order(drawn, 0.5, 1).values[:, 1]
    counted = [spin_glass_order(drawn, 0.5, 1, "aer?shots=50", seed=seed).values[:, 1] for seed in range(30)]
    misses = torch.stack(counted) - truth
    assert abs(float(misses.mean())) < 4 * float(misses.std()) / math.sqrt(misses.numel())
    assert abs(float((misses + 1 / 50).mean())) > 4 * float(misses.std()) / math.sqrt(misses.numel())


def test_means_carry_shot_errors_and_ensembles_their_spread() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]], dtype=torch.float64)
    found = Measured(values, torch.full_like(values, 0.3), torch.full_like(values, 0.01))
    torch.testing.assert_close(found.mean().stderr, torch.full((2,), 0.3 / math.sqrt(3), dtype=torch.float64))
    ensemble = found.ensemble_mean()
    torch.testing.assert_close(ensemble.stderr, values.std(0) / math.sqrt(3))
    torch.testing.assert_close(ensemble.truncation_error, torch.full((2,), 0.01, dtype=torch.float64))
    alone = found.arranged(lambda part: part[:1]).ensemble_mean()
    assert alone.stderr.tolist() == [0.3, 0.3]


def test_spread_has_its_jackknife_error() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=12))
    left_out = np.array([np.delete(values.numpy(), k).std(ddof=1) for k in range(12)])
    found = exact(values).ensemble_spread()
    assert found.values.item() == pytest.approx(values.numpy().std(ddof=1))
    assert found.stderr.item() == pytest.approx(math.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum()))
    with pytest.raises(ValueError, match="at least 3 disorder instances, got 2"):
        exact(values[:2]).ensemble_spread()


def test_bulk_errors_of_shots_hold_and_count_what_spins_share() -> None:
    drawn = draw_disorder(4, 12, dtype=torch.float64)
    truth = autocorrelators(drawn, 0.9, 3)
    found = autocorrelators(drawn, 0.9, 3, "aer?shots=300", seed=5)
    z = (found.bulk.values - truth.bulk.values) / found.bulk.stderr
    assert float(z.abs().max()) < 4.5
    assert 0.7 < float(z[:, 1:].square().mean()) ** 0.5 < 1.3


def test_matrix_product_states_agree_within_their_bound_and_show_it() -> None:
    drawn = draw_disorder(6, 2, dtype=torch.float64)
    truth = autocorrelators(drawn, 0.8, 6, initial="010011").bulk
    for bond, truncates in ((3, True), (8, False)):
        found = autocorrelators(drawn, 0.8, 6, QuimbMPS(max_bond=bond), "010011").bulk
        assert bool(((found.values - truth.values).abs() <= found.truncation_error + 1e-6).all())
        assert (float(found.truncation_error.max()) > 1e-3) is truncates


def test_phase_diagram_agrees_with_its_parts() -> None:
    drawn, kicks = draw_disorder(5, 4, dtype=torch.float64), [0.7, 0.95]
    diagram = phase_diagram(kicks, drawn, 20, initial="00101")
    for row, g in enumerate(kicks):
        bulk = autocorrelators(drawn, g, 20, initial="00101").bulk
        weights = subharmonic_weight(bulk)
        glass = spin_glass_order(drawn, g, 20, initial="00101").values[:, -2:].mean(1)
        torch.testing.assert_close(diagram.autocorrelator.values[row], bulk.values.mean(0))
        torch.testing.assert_close(diagram.weight.values[row], weights.values.mean())
        torch.testing.assert_close(diagram.weight.stderr[row], weights.values.std() / 2)
        torch.testing.assert_close(diagram.weight_spread.values[row], weights.values.std())
        torch.testing.assert_close(diagram.spin_glass.values[row], glass.mean())
        torch.testing.assert_close(diagram.spin_glass_spread.values[row], glass.std())


def test_order_falls_away_from_a_full_flip_and_glass_orders_of_two_sizes_cross() -> None:
    """Glass order grows with the chain inside the time crystal and shrinks outside."""
    small, large = (phase_diagram([0.7, 0.95, 1.0], draw_disorder(n, 20), 40, initial=("01101001")[:n]) for n in (5, 8))
    for diagram in (small, large):
        assert diagram.weight.values[2].item() == pytest.approx(1, abs=1e-4)
        assert diagram.weight_spread.values[2].item() < 1e-4
        assert float(diagram.weight.values[1]) > 4 * float(diagram.weight.values[0])
        assert diagram.spin_glass.values[2].item() == pytest.approx(diagram.n_wires - 3, abs=1e-3)
    for row, sign in ((0, -1), (1, 1)):
        error = math.hypot(float(small.spin_glass.stderr[row]), float(large.spin_glass.stderr[row]))
        assert sign * float(large.spin_glass.values[row] - small.spin_glass.values[row]) > 3 * error


@pytest.mark.parametrize(("kicks", "instances", "message"), [([], 3, "sequence of values"), ([0.9], 2, "at least 3")])
def test_bad_grids_are_refused(kicks: list[float], instances: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        phase_diagram(kicks, draw_disorder(4, instances), 2)


def test_survival_depends_on_the_initial_state_in_the_prethermal_regime_alone() -> None:
    control = prethermal_control(8, 60, instances=20)
    assert control.localised.initials == ("00000000", "01010101", "00110011")
    localised, prethermal = control.localised.late, control.prethermal.late
    assert float(localised.values.min()) > 0.75  # every state keeps its spins
    assert control.localised.dependence < 0.1
    assert float(prethermal.values[:2].min()) > 0.8  # the edges of the spectrum survive
    assert float(prethermal.values[2]) < 0.4  # its middle melts
    difference = float(prethermal.values[0] - prethermal.values[2])
    assert difference > 10 * math.hypot(float(prethermal.stderr[0]), float(prethermal.stderr[2]))
    assert control.localised.curves.values.shape == (3, 61)


def test_neel_and_polarised_states_change_places_where_every_other_field_changes_sign() -> None:
    """Flipping every other spin negates phi and those h; conjugation negates phi, h and g, which Z on all undoes."""
    drawn = draw_disorder(5, 3, dtype=torch.float64)
    mirrored = Disorder(drawn.phi, drawn.h * torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64))
    neel = autocorrelators(drawn, 0.8, 6, initial="01010").sites.values
    torch.testing.assert_close(autocorrelators(mirrored, 0.8, 6).sites.values, neel, atol=1e-12, rtol=0)
    assert float((autocorrelators(drawn, 0.8, 6).sites.values - neel).abs().max()) > 0.01


def test_one_initial_state_is_no_control() -> None:
    with pytest.raises(ValueError, match="at least 2 initial states, got 1"):
        prethermal_control(4, 5, initials=("0000",))


def test_echo_changes_nothing_without_noise() -> None:
    drawn = draw_disorder(4, 3, dtype=torch.float64)
    found = echo_correction(drawn, 0.8, 4, "statevector", "0110")
    both = torch.stack([autocorrelators(drawn, 0.8, 4, initial=state).bulk.values for state in ("0110", "1001")])
    torch.testing.assert_close(found.echo.values, torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(found.raw.values, both.mean((0, 1)))
    torch.testing.assert_close(found.corrected.values, found.raw.values)
    assert float(found.corrected.stderr.max()) == 0


def test_echo_correction_undoes_a_noisy_devices_decay() -> None:
    """Near g = 1; the rest, here 0.02, is the noise that the model of one factor per period does not describe."""
    drawn = draw_disorder(5, 3, dtype=torch.float64)
    truth = echo_correction(drawn, 0.97, 2, "statevector", "01011").raw.values
    found = echo_correction(drawn, 0.97, 2, "ibm:fake_manila?shots=2000", "01011", seed=0)
    lost = (truth - found.raw.values).abs()
    assert float(lost[2]) > 0.1
    assert bool((found.echo.values[1:] < found.echo.values[:-1]).all())
    rest = (truth - found.corrected.values).abs()
    assert bool((rest <= 3 * found.corrected.stderr + 0.02).all())
    assert float(found.corrected.stderr.max()) < 0.01
    assert float(rest[2]) < lost[2] / 5


def test_an_echo_that_drowns_in_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="echoes above twice their error, got"):
        echo_correction(draw_disorder(3, 1), 0.97, 1, "aer?shots=1", seed=0)


def test_picture_holds_what_the_diagram_says() -> None:
    kicks = torch.linspace(0.6, 1.0, 5)
    diagram = phase_diagram(kicks, draw_disorder(4, 3), 6)
    figure = draw(diagram)
    orders, times, frequencies, *_ = figure.axes
    drawn = [np.asarray(line.get_ydata()) for line in orders.get_lines()]
    assert any(line.shape == (5,) and np.allclose(line, diagram.weight.values) for line in drawn)
    assert any(line.shape == (5,) and np.allclose(line, diagram.spin_glass.values) for line in drawn)
    curves = [np.asarray(line.get_ydata()) for line in times.get_lines()]
    assert any(line.shape == (7,) and np.allclose(line, diagram.autocorrelator.values[4]) for line in curves)
    (image,) = frequencies.collections
    array = np.asarray(image.get_array()).reshape(4, 5)
    assert array[-1, -1] == pytest.approx(1, abs=1e-4)
