"""Pictures of a phase diagram."""

from typing import TYPE_CHECKING

from qlm.floquet.order import spectrum
from qlm.floquet.phase import PhaseDiagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_WEIGHT, _GLASS = "#5b2a86", "#d9822b"
_KICKS = ("#5b2a86", "#2a7f86", "#d9822b")

_FAINTEST = 1e-3
"""Amplitude that is drawn black."""


def draw(diagram: PhaseDiagram, figure: "Figure | None" = None) -> "Figure":
    """Draw orders and their spreads over g, autocorrelators at three values of g, and the spectrum over g.

    Error bars are standard errors of the disorder means. ``figure``: an empty one to draw in, as ``plt.figure(...)``
    makes it; None: a new one without a window. Returns it.

    >>> from qlm.floquet import draw_disorder, phase_diagram
    >>> len(draw(phase_diagram([0.7, 1.0], draw_disorder(4, 3), periods=4)).axes)
    5
    """
    if figure is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 3.8), layout="constrained")
    orders, times, frequencies = figure.subplots(1, 3)
    _draw_orders(diagram, orders)
    _draw_autocorrelators(diagram, times)
    image = _draw_spectrum(diagram, frequencies)
    figure.colorbar(image, ax=frequencies, label="amplitude |S|")
    return figure


def _draw_orders(diagram: PhaseDiagram, axes: "Axes") -> None:
    most = diagram.n_wires - 3
    series = (
        ("weight at half the drive", _WEIGHT, "o-", 1, diagram.weight, diagram.weight_spread),
        ("spin-glass order / (n - 3)", _GLASS, "s-", most, diagram.spin_glass, diagram.spin_glass_spread),
    )
    beside = axes.twinx()
    for label, colour, line, scale, mean, spread in series:
        for where, style, found in ((axes, line, mean), (beside, ":", spread)):
            values, stderr = found.values.numpy() / scale, found.stderr.numpy() / scale
            where.errorbar(
                diagram.g.numpy(), values, stderr, color=colour, fmt=style, markersize=3, linewidth=1, label=label
            )
    axes.set(xlabel="kick g", ylabel="order", ylim=(-0.05, 1.05))
    axes.set_title(f"{diagram.n_wires} spins, {diagram.instances} disorder instances")
    beside.set(ylabel="spread between instances (dotted)", ylim=(0, None))
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def _draw_autocorrelators(diagram: PhaseDiagram, axes: "Axes") -> None:
    """At the values of g with the largest, the middle and the smallest weight."""
    ranked = diagram.weight.values.argsort(descending=True)
    chosen = dict.fromkeys(int(ranked[k]) for k in (0, len(ranked) // 2, -1))
    for row, colour in zip(chosen, _KICKS, strict=False):
        values, stderr = (part[row].numpy() for part in diagram.autocorrelator.parts[:2])
        label = f"g = {float(diagram.g[row]):.2f}"
        axes.errorbar(range(len(values)), values, stderr, color=colour, linewidth=0.8, label=label)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set(xlabel="period t", ylabel="bulk autocorrelator A(t)", ylim=(-1.1, 1.35), title="Autocorrelators")
    axes.legend(frameon=False, loc="upper center", ncols=len(chosen), fontsize="small")


def _draw_spectrum(diagram: PhaseDiagram, axes: "Axes") -> "QuadMesh":
    found = spectrum(diagram.autocorrelator)
    amplitudes = found.amplitudes.values.T.clamp(min=_FAINTEST).numpy()
    grid = (diagram.g.numpy(), found.frequencies.numpy(), amplitudes)
    image = axes.pcolormesh(*grid, cmap="magma", norm="log", vmin=_FAINTEST, vmax=1, shading="nearest")
    axes.set(xlabel="kick g", ylabel="frequency / drive frequency", title="Spectrum of the mean A(t)")
    return image
