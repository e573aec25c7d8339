# %% [markdown]
# # Quantum natural gradient
#
# Plain gradient descent measures a step by how far the *weights* move. But a circuit's weights are angles of gates, and
# some angles hardly move its state while others turn it around. The *quantum natural gradient* measures a step by how
# far the *state* moves. It is an ordinary torch optimizer for the weights of `QuantumLayer`s.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from backends import open_backend
from backends.fubini_study import block_metric, full_metric, trainable_layers
from circuits import Circuit, Op, Weight, Z
from qlm import QuantumLayer
from qlm.natural_gradient import QuantumNaturalGradient

torch.set_num_threads(1)
PURPLE, ORANGE, GREY = "#5b2a86", "#d9822b", "0.55"

# %% [markdown]
# ## A circuit and its metric
#
# Layers of random rotations with a ladder of CZ gates, as in the paper that proposed the method. The metric `g` says
# how the state moves: if the weights move by d, the squared overlap with where it was falls by `d^T g d`. It is a
# quarter of the quantum Fisher information. Gates that commute form a layer, and within a layer `g` is a covariance of
# Pauli measurements: any backend can measure it. Between layers it is taken as 0.

# %%
N_WIRES, DEPTH = 4, 4
rng = np.random.default_rng(2)
ops = [Op("ry", (wire,), (math.pi / 4,)) for wire in range(N_WIRES)]
for layer in range(DEPTH):
    for wire, name in enumerate(rng.choice(["rx", "ry", "rz"], N_WIRES)):
        ops.append(Op(str(name), (wire,), (Weight(N_WIRES * layer + wire),)))
    ops += [Op("cz", (wire, wire + 1)) for wire in range(N_WIRES - 1)]
circuit = Circuit(N_WIRES, tuple(ops))
start = torch.tensor(rng.uniform(0, 2 * math.pi, circuit.n_weights))
print(circuit.draw())
print("weights per layer:", [len(layer.columns) for layer in trainable_layers(circuit)])

exact = open_backend("statevector")
whole, blocks = (metric(exact, circuit, None, start).values for metric in (full_metric, block_metric))
chain = block_metric(open_backend("quimb:mps"), circuit, None, start).values
counted = block_metric(open_backend("aer?shots=2000"), circuit, None, start, seed=0)
device = block_metric(open_backend("ibm:fake_manila?shots=2000"), circuit, None, start, seed=0)
assert torch.allclose(chain, blocks, atol=1e-6)
assert ((counted.values - blocks).abs() <= 5 * counted.stderr + 1e-6).all()
print(f"largest error of 2000 shots: {(counted.values - blocks).abs().max():.3f}, stated {counted.stderr.max():.3f}")
print(f"largest difference on a noisy device: {(device.values - blocks).abs().max():.3f}")

figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
names = ("whole, exact", "blocks, exact", "blocks, 2000 shots", "blocks, noisy device")
for ax, title, metric in zip(axes, names, (whole, blocks, counted.values, device.values), strict=True):
    image = ax.imshow(metric.numpy(), cmap="RdBu", vmin=-0.25, vmax=0.25)
    ax.set(title=title, xlabel="weight")
axes[0].set_ylabel("weight")
figure.colorbar(image, ax=axes, shrink=0.8, label="g")
plt.show()

# %% [markdown]
# ## Descending
#
# The energy `<Z_0 Z_1>` can fall to -1. All runs start at the same weights. A free spin has `g = 1/4`, so the natural
# gradient is four times the plain one there; gradient descent is therefore given four times the rate as well.


# %%
def descend(make, steps: int = 80) -> list[float]:
    """Energies along the way."""
    layer = QuantumLayer(circuit, (Z(0) @ Z(1),)).double()
    with torch.no_grad():
        layer.weights.copy_(start)
    optimizer, energies = make(layer), []
    for _ in range(steps):
        optimizer.zero_grad()
        energy = layer(torch.zeros(1, 0, dtype=torch.float64)).sum()
        energy.backward()
        optimizer.step()
        energies.append(energy.item())
    return energies


def steps_needed(energies: list[float]) -> int:
    """Steps to an energy below -0.95; as many as were taken where it was not reached."""
    return next((step for step, energy in enumerate(energies) if energy < -0.95), len(energies))


runs = {
    "natural gradient, rate 0.05": descend(lambda layer: QuantumNaturalGradient(layer, lr=0.05)),
    "gradient descent, rate 0.05": descend(lambda layer: torch.optim.SGD(layer.parameters(), lr=0.05)),
    "gradient descent, rate 0.2": descend(lambda layer: torch.optim.SGD(layer.parameters(), lr=0.2)),
    "Adam, rate 0.2": descend(lambda layer: torch.optim.Adam(layer.parameters(), lr=0.2)),
}
needed = {name: steps_needed(energies) for name, energies in runs.items()}
for name, steps in needed.items():
    print(f"{name}: {steps} steps to -0.95" + (" are not enough" if steps == len(runs[name]) else ""))
natural, slow, fast, adam = needed.values()
assert adam < natural < min(slow, fast)

figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
for (name, energies), colour, line in zip(
    runs.items(), (PURPLE, ORANGE, ORANGE, GREY), ("-", ":", "--", "-"), strict=True
):
    axes.plot(energies, line, color=colour, label=name)
axes.set(xlabel="step", ylabel="energy")
axes.legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# The natural gradient needs fewer steps than plain descent at either rate. But steps are not time: each one measures
# the metric too, one more circuit per layer of gates. And Adam, which knows no metric, is faster still here: on a
# simulator it is the yardstick, and the claim "fewer steps" is one about plain gradient descent.
#
# In a language model the circuit is a small part. `QuantumNaturalGradient(model, lr=...)` finds its circuits, and
# `optimizer.others(model)` are the parameters for a classical optimizer beside it; call `step()` on both.
