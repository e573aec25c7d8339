# %% [markdown]
# # A discrete time crystal
#
# You know PyTorch; no quantum computing is needed. A row of spins is kicked periodically, and answers at *half* the
# rhythm, even when the kick is a little wrong. We draw the circuit, map out where this happens, ask whether it is real
# or merely slow to die, run 30 spins and a noisy device, and put the circuit into a small language model, beside a
# classical twin.

# %%
import math

import matplotlib.pyplot as plt
import torch

from backends import open_backend
from circuits.library import kicked_ising
from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.time_crystal import TimeCrystal
from qlm.data import RandomByteWindows, load_corpus
from qlm.floquet import (
    Disorder,
    autocorrelators,
    draw,
    draw_disorder,
    echo_correction,
    phase_diagram,
    prethermal_control,
)

PURPLE, TEAL, ORANGE = "#5b2a86", "#2a7f86", "#d9822b"
torch.manual_seed(0)

# %% [markdown]
# ## One period
#
# Each wire is a spin that points up (bit 0) or down (bit 1). A period has three parts. `RX(pi g)` kicks every spin:
# g = 1 turns it over exactly. `RZZ` ties neighbours together, `RZ` is a field on each spin. The ties phi and the fields
# h are random and stay the same in every period: that is the *disorder*. `x0` is g, then come the ties and the fields,
# so that many random chains are one batch.

# %%
print(kicked_ising(4, 1).draw())

# %% [markdown]
# ## Why it is more than a flip
#
# At g = 1 spins turn over in each period and are back after two: no surprise, the period doubled. The question is what
# happens at g = 0.95. A free spin turns by 0.95 of a flip each time, falls behind, and its signal beats:
# `A(t) = cos(pi g t)`. Tied and disordered spins stay locked to two periods. A(t) is the *autocorrelator*: each spin's
# mean after t periods times its start, averaged over the bulk (the chain without its two ends).

# %%
disorder = draw_disorder(n_wires=8, instances=20)
free = Disorder(torch.zeros_like(disorder.phi), torch.zeros_like(disorder.h))
locked_curve = autocorrelators(disorder, g=0.95, periods=40).bulk.ensemble_mean()
free_curve = autocorrelators(free, g=0.95, periods=40).bulk.ensemble_mean()
times = torch.arange(41)
assert torch.allclose(free_curve.values, torch.cos(math.pi * 0.95 * times), atol=1e-4)
print(f"kept after 40 periods: locked {locked_curve.values[40]:.2f} +- {locked_curve.stderr[40]:.2f}")

figure, axes = plt.subplots(figsize=(11, 3.2), layout="constrained")
axes.plot(free_curve.values.numpy(), color="0.6", linewidth=1, label="free spins")
axes.errorbar(times.numpy(), locked_curve.values.numpy(), locked_curve.stderr.numpy(), color=PURPLE, label="tied spins")
axes.set(xlabel="period t", ylabel="autocorrelator A(t)", title="Kick g = 0.95", ylim=(-1.15, 1.15))
figure.legend(frameon=False, loc="outside right upper")
plt.show()

# %% [markdown]
# ## The phase diagram
#
# All values of g and all random chains run as one batch, each once: the simulator reads the spins along the way. Left:
# the weight at half the drive's frequency, `(1/T) sum_t (-1)^t A(t)`, and the spin-glass order, which asks whether
# spins i and j keep a definite relation, up or down, however random. Right: the spectrum, with its line at one half.

# %%
kicks = torch.linspace(0.5, 1.0, 21)
diagram = phase_diagram(kicks, disorder, periods=40, initial="01101001")
draw(diagram, plt.figure(figsize=(13, 3.8), layout="constrained"))
plt.show()

# %% [markdown]
# One size alone shows a smooth fall. A phase shows when the chain grows: in the time crystal the spin-glass order grows
# with it, outside it shrinks.

# %%
short = phase_diagram([0.7, 0.95], draw_disorder(5, 20), periods=40, initial="01101")
long = phase_diagram([0.7, 0.95], disorder, periods=40, initial="01101001")
for row, g in enumerate((0.7, 0.95)):
    orders = [f"{d.spin_glass.values[row]:.3f} +- {d.spin_glass.stderr[row]:.3f}" for d in (short, long)]
    print(f"g = {g}: spin-glass order with 5 spins {orders[0]}, with 8 spins {orders[1]}")
assert short.spin_glass.values[0] > long.spin_glass.values[0]
assert short.spin_glass.values[1] < long.spin_glass.values[1]

# %% [markdown]
# ## Is it real, or only slow to die?
#
# Period doubling alone is no time crystal. Give all ties the same weak value, -0.4: then the chain is not localised,
# but takes very long to heat, and *some* starts show beautiful oscillations. The control asks for several starts: all
# up, alternating, and `0011...`. In the time crystal all of them survive. In the control the first two, which are as
# ordered as its slow dynamics allows and lie on each other, survive too, and the third melts.

# %%
control = prethermal_control(n_wires=8, periods=60, instances=20)
figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
styles = ({"color": PURPLE, "linewidth": 5, "alpha": 0.4}, {"color": TEAL}, {"color": ORANGE})
for panel, title, regime in (
    (panels[0], "disordered ties: time crystal", control.localised),
    (panels[1], "all ties -0.4: prethermal", control.prethermal),
):
    for row, (initial, style) in enumerate(zip(regime.initials, styles, strict=True)):
        panel.plot(regime.curves.values[row].numpy(), **style, label=initial)
    panel.set(xlabel="period t", title=title, ylim=(-0.2, 1.05))
panels[0].set_ylabel("survival (-1)^t A(t)")
panels[0].legend(frameon=False, loc="lower left")
plt.show()
print(f"largest difference between starts: time crystal {control.localised.dependence:.2f}, ", end="")
print(f"prethermal {control.prethermal.dependence:.2f}")
assert control.localised.dependence < 0.1 < 0.4 < control.prethermal.dependence
for title, regime in (("time crystal", control.localised), ("prethermal", control.prethermal)):
    late = [f"{initial} {mean:.2f}" for initial, mean in zip(regime.initials, regime.late.values.tolist(), strict=True)]
    print(f"{title}, mean survival over the last half: {', '.join(late)}")
assert control.localised.late.values.min() > 0.8
up, alternating, walls = control.prethermal.late.values.tolist()
assert min(up, alternating) > 0.8 > 0.4 > walls
assert torch.allclose(*control.prethermal.curves.values[:2], atol=0.01)

# %% [markdown]
# ## Thirty spins
#
# The state of 30 spins has 2^30 numbers. Locked spins are little entangled, so that a *matrix product state* of modest
# bonds holds them; only the backend's string changes. What was cut away is bounded and comes with the answer.

# %%
wide = draw_disorder(n_wires=30, instances=1, dtype=torch.float64)
chain = autocorrelators(wide, g=0.97, periods=10, backend="quimb:mps?max_bond=32", initial="01" * 15).bulk
print(f"A(10) of 30 spins: {chain.values[0, -1]:.4f}, wrong by at most {chain.truncation_error[0, -1]:.1e}")
assert chain.truncation_error.max() < 1e-4

# %% [markdown]
# ## A noisy device
#
# `ibm:fake_manila` is a simulated 5-qubit IBM machine with its noise. Its signal decays; is that the physics, or the
# noise? Run t periods forward and t periods *backward*: ideally nothing has happened, so what is missing is noise. The
# echo is twice as long, hence the square root. It is a model of the noise, good near g = 1.

# %%
few = draw_disorder(n_wires=5, instances=2, dtype=torch.float64)
ideal = echo_correction(few, g=0.97, periods=4, backend="statevector", initial="01011").raw
device = open_backend("ibm:fake_manila?shots=1000")
found = echo_correction(few, g=0.97, periods=4, backend=device, initial="01011", seed=0)

figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
steps = torch.arange(5).numpy()
signs = (-1.0) ** torch.arange(5)
axes.plot(steps, (signs * ideal.values).numpy(), color="0.6", linewidth=4, label="without noise")
for label, colour, marker, curve in (("raw", ORANGE, "v", found.raw), ("corrected", PURPLE, "o", found.corrected)):
    values, stderr = (signs * curve.values).numpy(), curve.stderr.numpy()
    axes.errorbar(steps, values, stderr, color=colour, fmt=f"{marker}-", capsize=3, label=label)
axes.plot(steps, found.echo.values.numpy(), color=TEAL, linestyle=":", label="echo")
axes.set(xlabel="period t", ylabel="survival (-1)^t A(t)", xticks=steps, title="Five spins on a noisy device, g = 0.97")
figure.legend(frameon=False, loc="outside right upper")
plt.show()
missed, rest = ((ideal.values - curve.values)[4].abs() for curve in (found.raw, found.corrected))
print(f"off after 4 periods: raw {missed:.3f}, corrected {rest:.3f} +- {found.corrected.stderr[4]:.3f}")
assert rest < missed / 3

# %% [markdown]
# ## In a language model
#
# The block `time_crystal` turns each token's vector into angles that prepare four spins, kicks them four times, and
# reads them back with the sign of the period doubling undone. Kick, ties and fields are trained: 8 numbers. The *twin*
# has 8 numbers too: four leaky units that flip their sign at each step because we wrote it so. Same model, same text,
# same seeds.

# %%
corpus = load_corpus("python-docs")
windows = RandomByteWindows(corpus.train, context=32, n_windows=8 * 120, seed=0)


def train(quantum: str) -> tuple[list[float], TimeCrystal]:
    """Train on the reference manual of Python; the training loss of each step in bits per byte, and the block."""
    torch.manual_seed(0)
    blocks = [{"kind": "harmonic", "taus": [4.0]}, {"kind": "time_crystal"}]
    model = QLMForCausalLM(QLMConfig(d_model=24, blocks=blocks, quantum=quantum)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    bits = []
    for step in range(120):
        items = [windows[8 * step + k] for k in range(8)]
        ids, labels = (torch.stack([item[name] for item in items]) for name in ("input_ids", "labels"))
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    return bits, next(module for module in model.modules() if isinstance(module, TimeCrystal))


results = {mode: train(mode) for mode in ("circuit", "twin", "off")}
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for (mode, (bits, block)), colour in zip(results.items(), (PURPLE, ORANGE, "0.6"), strict=True):
    axes.plot(bits, color=colour, linewidth=1, label=mode)
    last = sum(bits[-20:]) / 20
    print(f"{mode:7} training loss {last:.3f} bits per byte (mean of the last 20 steps), ", end="")
    print(f"kept {block.report.kept:.3f}, {block.report.executions} circuits a step")
axes.set(
    xlabel="step",
    ylabel="training loss (bits per byte)",
    title="The same model with the circuit, with its twin, with neither",
)
axes.legend(frameon=False)
plt.show()
final = {mode: sum(bits[-20:]) / 20 for mode, (bits, _) in results.items()}
assert max(final.values()) - min(final.values()) < 0.2

# %% [markdown]
# The three curves of the training loss nearly lie on each other: on this text, at this size, the drive buys nothing,
# and a model without it learns as well; held-out text is not asked here. That is what one should expect. A time crystal
# keeps what it was given, which a wire does too; what makes it remarkable is that it does so against a wrong kick and
# without anybody correcting it. How long it can grows with the length of the chain, not with the depth of the network
# around it, and four spins are no phase of matter. A classical vector has no such coherence to lose. The block is here
# so that the claim can be tested, with its twin beside it.
