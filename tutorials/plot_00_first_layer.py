# %% [markdown]
# # A first quantum layer
#
# You know PyTorch; no quantum computing is needed. We write a small circuit, look at it, run it, use it as a layer,
# train it, ask how entangled its state is, and put an ordinary network of the same size beside it.

# %%
import matplotlib.pyplot as plt
import torch

from backends import open_backend
from circuits import Circuit, Input, Op, Weight, Z
from circuits.library import reuploading
from qlm import QuantumLayer
from qlm.controls import TwinCore

_ = torch.manual_seed(0)

# %% [markdown]
# ## A circuit is data
#
# A circuit acts on *wires*, each a two-level system (a qubit). A gate such as `ry` rotates one wire by an angle. The
# angle comes from a *slot*: `Input(0)` is the first number of each sample, `Weight(0)` a trainable number shared by all
# samples. `cx` flips its second wire where the first one is 1: it is what ties the wires together.

# %%
bell = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("rx", (1,), (Weight(0, scale=2.0),)), Op("cx", (0, 1))))
print(bell.draw())

# %% [markdown]
# ## Run it
#
# A backend runs circuits. What comes out are *expectations*: `Z(0)` is the average of +1 (wire 0 found in 0) and -1
# (found in 1), so it lies in [-1, 1]. Every answer is an `Estimate`: the values and their standard error, which is 0 on
# the exact simulator. With the weight at 0, the formula for this circuit is `<Z_0> = cos x`.

# %%
inputs = torch.linspace(0, 3.1, 5)[:, None]
weights = torch.zeros(1)
exact = open_backend("statevector").expectations(bell, inputs, weights, (Z(0), Z(0) @ Z(1)))
print("Z(0):", exact.values[:, 0].numpy().round(4), "error:", exact.stderr[:, 0].numpy())
assert torch.allclose(exact.values[:, 0], torch.cos(inputs[:, 0]), atol=1e-6)

# %% [markdown]
# Another engine is another string: `open_backend("aer?shots=1000")` counts 1000 measurements per sample instead, and
# its `stderr` says how far the average may be off.
#
# ## A layer
#
# `QuantumLayer` maps `(batch, n_inputs)` to `(batch, n_observables)` and owns the weights. We fit a curve with a
# *re-uploading* circuit: encoding and trainable layers alternate. Its output is a Fourier series in x whose highest
# frequency is the number of encodings, here 3, and our target is one of those.

# %%
x = torch.linspace(-torch.pi, torch.pi, 128)[:, None]
target = 0.45 * torch.sin(x) + 0.3 * torch.cos(3 * x)
circuit = reuploading(2, 3)
print(circuit.draw())
print(circuit.n_weights, "weights")


def fit(model: torch.nn.Module, steps: int = 250) -> list[float]:
    """Train on the curve and return the mean squared error of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x.expand(-1, 2)) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


layer = QuantumLayer(circuit, (Z(0),), backend="statevector")
quantum_losses = fit(layer)
print(f"circuit: error {quantum_losses[0]:.4f} -> {quantum_losses[-1]:.6f}")

# %% [markdown]
# ## The classical twin
#
# A result without a control says little. `TwinCore` is a tanh network with the circuit's inputs, outputs and, to
# within one hidden unit, its number of parameters.

# %%
twin = TwinCore(2, 1, circuit.n_weights)
twin_losses = fit(twin)
print(f"twin ({twin.n_parameters} parameters): error {twin_losses[0]:.4f} -> {twin_losses[-1]:.6f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.plot(x, target, color="0.7", linewidth=5, label="target")
left.plot(x, layer(x.expand(-1, 2)).detach(), color="#5b2a86", label="circuit")
left.plot(x, twin(x.expand(-1, 2)).detach(), color="#d9822b", linestyle="--", label="twin")
left.set(xlabel="x (radians)", ylabel="output", title="The fit")
left.legend(frameon=False)
right.semilogy(quantum_losses, color="#5b2a86", label="circuit")
right.semilogy(twin_losses, color="#d9822b", linestyle="--", label="twin")
right.set(xlabel="step", ylabel="mean squared error", title="Training")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# The circuit wins here because the target was made for it: a Fourier series with exactly the frequencies that the
# circuit has. On a target of another kind the twin may win; that is why both are always trained.
#
# ## How entangled is it?
#
# The entropy of one wire's state tells how strongly it is tied to the rest: 0 for independent wires, at most ln 2 for
# one wire. Removing the entangling gates (`separable`) makes it exactly 0, whatever the input: a control that costs
# nothing.

# %%
entropy = layer.entropy(x.expand(-1, 2), wires=(0,)).values.detach()
flat = open_backend("statevector").entropy(circuit.separable(), x.expand(-1, 2), layer.weights.detach(), wires=(0,))
assert flat.values.abs().max() < 1e-5

figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
axes.plot(x, entropy, color="#5b2a86", label="trained circuit")
axes.plot(x, flat.values, color="0.5", linestyle=":", label="without entangling gates")
axes.axhline(torch.log(torch.tensor(2.0)), color="0.8", label="ln 2, the most one wire can have")
axes.set(xlabel="x (radians)", ylabel="entropy of wire 0 (nats)")
figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
plt.show()

# %% [markdown]
# Entropy says that wires are tied together, not that the model is better for it: that question is settled by the twin.
