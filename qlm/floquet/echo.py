"""What noise alone does, measured by running backwards, and autocorrelators with it divided out.

Axis legend: d disorder instances, t times.
"""

from dataclasses import dataclass

import torch

from backends import Backend, open_backend
from backends.counts import derived_seed
from circuits._check import integer
from circuits.library.floquet import checked_initial, kicked_ising, period_ends
from qlm.floquet.disorder import Disorder, check_kick
from qlm.floquet.measured import Measured
from qlm.floquet.trajectories import bulk_observable


@dataclass(frozen=True, slots=True)
class EchoCorrection:
    """Bulk autocorrelator as measured, that of the echo, and the corrected one, each (t,), t = 0 ... T.

    Means over the given instances; standard errors are those of the shots for these instances.
    """

    raw: Measured
    echo: Measured
    corrected: Measured


def echo_correction(
    disorder: Disorder,
    g: float,
    periods: int,
    backend: str | Backend,
    initial: str | None = None,
    shots: int | None = None,
    seed: int | None = None,
) -> EchoCorrection:
    """Return ``A(t) / sqrt(A_echo(t) A(0))``, with A_echo(t) after t periods forwards and the same t backwards.

    Without noise A_echo = 1 = A(0), and nothing is changed. With noise that shrinks every spin by one factor per
    period, the echo, twice as long, shrinks by its square: Mi et al. 2022, Nature 601, 531 divide by sqrt(A_echo).
    A(0), the contrast of the readout, is in both once and is divided out too. The mean over ``initial`` and its
    complement is taken, because relaxation and readout favour one of the two bits. It remains a model of the noise,
    exact for global depolarising alone: away from g = 1 an error spoils the echo of many spins and the signal of
    few, and the correction overshoots. Every echo is a circuit of its own: 2 (2 T + 1) circuits of up to 2 T
    periods per instance. Raises ValueError for fewer than 3 spins, and where an echo does not exceed twice its
    error.

    >>> from qlm.floquet import draw_disorder
    >>> found = echo_correction(draw_disorder(3, 2), 1.0, 2, "statevector")
    >>> found.corrected.values.round(decimals=3).tolist()
    [1.0, -1.0, 1.0]
    """
    check_kick("echo_correction", g)
    periods = integer("echo_correction", "periods", periods, 1)
    initial = checked_initial("echo_correction", disorder.n_wires, initial)
    complement = "".join("10"[int(bit)] for bit in initial)
    opened = open_backend(backend)
    both = [
        _measure(opened, disorder, g, periods, state, shots, derived_seed(seed, number))
        for number, state in enumerate((initial, complement))
    ]
    raw, echo = (Measured.joined(parts).mean() for parts in zip(*both, strict=True))
    return EchoCorrection(raw, echo, _corrected(raw, echo))


def _measure(
    backend: Backend,
    disorder: Disorder,
    g: float,
    periods: int,
    initial: str,
    shots: int | None,
    seed: int | None,
) -> tuple[Measured, Measured]:
    """The raw and the echoed bulk autocorrelator, each (d, t); at t = 0 they are one circuit, run once."""
    observables, inputs = (bulk_observable(initial),), disorder.inputs(g)
    forward = kicked_ising(disorder.n_wires, periods, initial=initial)
    ends = period_ends(forward)
    along = backend.expectations(
        forward, inputs, None, observables, after=ends, shots=shots, seed=derived_seed(seed, 0)
    )
    raw = Measured.of(along).arranged(lambda part: part[..., 0])
    echoes = [raw.arranged(lambda part: part[:, :1])]
    for t in range(1, periods + 1):
        there = kicked_ising(disorder.n_wires, t)
        echo = forward.prefix(ends[0]) + there + there.inverse()
        found = backend.expectations(echo, inputs, None, observables, shots=shots, seed=derived_seed(seed, t))
        echoes.append(Measured.of(found))
    return raw, Measured.joined(echoes, 1)


def _corrected(raw: Measured, echo: Measured) -> Measured:
    """Errors add in quadrature, relative and to first order; bounds add up."""
    reference = echo.arranged(lambda part: part[0])
    weak = echo.values <= 2 * echo.stderr + echo.truncation_error
    if bool(weak.any()):
        t = int(weak.nonzero()[0])
        raise ValueError(
            f"echo correction expects echoes above twice their error, got {float(echo.values[t]):.3f} +- "
            f"{float(echo.stderr[t]):.3f} after {t} periods; use fewer periods or more shots."
        )
    scale = (echo.values * reference.values).rsqrt()
    values = raw.values * scale
    relative = (values / echo.values, values / reference.values)
    variance = (raw.stderr * scale).square() + (relative[0] * echo.stderr / 2).square()
    stderr = (variance + (relative[1] * reference.stderr / 2).square()).sqrt()
    bound = raw.truncation_error * scale + relative[0].abs() * echo.truncation_error / 2
    bound = bound + relative[1].abs() * reference.truncation_error / 2
    after = torch.arange(len(values)) > 0  # at t = 0 all three are one number, and the ratio is 1 without error
    return Measured(values, stderr * after, bound * after)
