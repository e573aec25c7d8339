# %% [markdown]
# # Attention with a quantum kernel
#
# Attention compares tokens: the more alike a query and an earlier key are, the more of that key's value is read. Here
# both are turned into *quantum states*, and "alike" means how much two states overlap. You know PyTorch; no quantum
# computing is needed.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import torch

from backends import open_backend
from circuits.library import kernel_feature_map, zz_feature_map
from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.base import Context
from qlm.blocks.kernel_attention import KernelAttention, KernelAttentionConfig
from qlm.blocks.kernel_parts import KernelLayer
from qlm.data import load_corpus

torch.manual_seed(0)
PURPLE, ORANGE, GREY = "#5b2a86", "#d9822b", "0.6"

# %% [markdown]
# ## A circuit that turns numbers into a state
#
# A *feature map* is a circuit whose rotation angles are the data. This one encodes two numbers, mixes with trainable
# weights, and encodes the same numbers again. The last layer has to be the encoding: whatever both states go through
# at the end, without looking at the data, leaves their overlap as it was.

# %%
feature_map = kernel_feature_map(2, depth=1)
print(feature_map.draw())
print(zz_feature_map(2, reps=1).draw())

# %% [markdown]
# The second drawing is a feature map from the literature, without weights; a block takes any circuit.
#
# ## The kernel
#
# The kernel is the squared overlap of two states, `K(x, y) = |<phi(x)|phi(y)>|^2`: 1 for equal states, 0 for
# perfectly distinguishable ones. Without entangling gates and weights it is known in closed form, the product of
# `cos^2((x_i - y_i) / 2)`; with them it can be another function of x and y.

# %%
simulator = open_backend("statevector")
plain = kernel_feature_map(2, depth=0)
grid = torch.linspace(-math.pi, math.pi, 61)
points = torch.cartesian_prod(grid, grid)
origin = torch.zeros(1, 2)
weights = 1.5 * torch.randn(feature_map.n_weights)
product = simulator.fidelity(plain, points, inputs_b=origin, gram=True).values.reshape(61, 61)
entangled = simulator.fidelity(
    feature_map, points, inputs_b=origin, weights_a=weights, weights_b=weights, gram=True
).values.reshape(61, 61)
assert torch.allclose(product, torch.cos(points / 2).square().prod(1).reshape(61, 61), atol=1e-5)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
shown = {"closed form: no entanglement": product, "entangled, random weights": entangled}
for axis, (title, kernel) in zip(axes, shown.items(), strict=True):
    picture = kernel.T.numpy()
    image = axis.imshow(picture, origin="lower", extent=(-math.pi, math.pi) * 2, vmin=0, vmax=1, cmap="magma")
    axis.set(xlabel="first number (radians)", title=title)
axes[0].set_ylabel("second number (radians)")
figure.colorbar(image, ax=axes, label="overlap with the point (0, 0)")
plt.show()

# %% [markdown]
# ## The same kernel on other machines
#
# A simulator that holds states overlaps them. A device cannot show its state; there one runs the circuit of x, then
# the circuit of y backwards, and asks how often all qubits come back as 0. That is *compute-uncompute*, and only the
# backend's name changes: an MPS simulator, counted measurements, a fake IBM device with its noise.

# %%
backends = ["statevector", "quimb:mps?max_bond=4", "aer?shots=1000", "ibm:fake_manila?shots=1000"]
x = torch.tensor([[0.3, -1.0], [1.2, 0.8], [-2.0, 0.5], [0.7, 0.7]])
y = torch.tensor([[0.5, -0.4], [-0.6, 1.9], [-1.1, 1.6], [0.7, 0.7]])
found = {}
for name in backends:
    layer = KernelLayer(feature_map, name)
    with torch.no_grad():
        layer.weights.copy_(weights)
        found[name] = layer.overlaps(x, y)
    print(f"{name:28}", found[name].numpy().round(3))
assert torch.allclose(found["quimb:mps?max_bond=4"], found["statevector"], atol=1e-5)
assert found["ibm:fake_manila?shots=1000"][3] < found["statevector"][3] - 0.01

figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
for k, (name, values) in enumerate(found.items()):
    places = [pair + 0.2 * (k - 1.5) for pair in range(4)]
    axis.bar(places, values.tolist(), width=0.18, label=name, color=(PURPLE, "#8f63b8", ORANGE, GREY)[k])
axis.set(ylabel="overlap", xticks=range(4), xticklabels=["pair 1", "pair 2", "pair 3", "a point with itself"])
figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize="small")
plt.show()

# %% [markdown]
# The last pair is a point with itself, whose overlap is 1. On the noisy device it is less: noise makes a state differ
# from itself.
#
# ## Attention
#
# The block makes angles of each token for a query and for a key, runs each circuit once, and reads a causal average:
# each earlier value, weighed by its overlap over the sum of the overlaps. Overlaps are inner products of a fixed number
# of features, so the sums also have a form whose time is *linear* in the length; both give the same numbers.

# %%
hidden = torch.randn(1, 200, 16)
outputs = {}
for form in ("quadratic", "linear"):
    torch.manual_seed(1)
    block = KernelAttention(16, KernelAttentionConfig(n_wires=2, depth=1, form=form)).eval()
    outputs[form] = block(hidden, Context())
    print(form, block.report)
difference = (outputs["quadratic"].hidden - outputs["linear"].hidden).abs().max().item()
print(f"largest difference: {difference:.1e}; state: {tuple(outputs['linear'].state[0].shape)}, whatever the length")
assert difference < 1e-5

# %% [markdown]
# On a device, each query looks at a window of keys, one circuit for each pair. Below, the very same block (same
# weights) with a window of 3 tokens, on the simulator and on the fake device.

# %%
short = hidden[:, :8]
windowed = {}
for name in ("statevector", "ibm:fake_manila?shots=1000"):
    torch.manual_seed(1)
    block = KernelAttention(16, KernelAttentionConfig(n_wires=2, depth=1, window=3), name).eval()
    with torch.no_grad():
        windowed[name] = block(short, Context()).hidden - short
    assert block.report is not None
    print(f"{name:28} {block.report.executions} circuits, shots {block.report.shots}, form {block.report.form}")
exact, device = windowed.values()
print(f"the device's update differs from the exact one by {((device - exact).norm() / exact.norm()).item():.1%}")

# %% [markdown]
# ## More qubits are not better
#
# Overlaps of random states shrink like one over two to the number of qubits, and so does their spread: with many qubits
# all tokens look equally different. It is called *concentration*; the block reports mean and spread so that one sees
# it coming.

# %%
sizes, spreads, means = range(2, 9), [], []
for n_wires in sizes:
    circuit = kernel_feature_map(n_wires, 3)
    points = math.pi * (2 * torch.rand(60, n_wires) - 1)
    random = math.pi * (2 * torch.rand(circuit.n_weights) - 1)
    gram = simulator.fidelity(circuit, points, inputs_b=points, weights_a=random, weights_b=random, gram=True).values
    off = gram[~torch.eye(60, dtype=torch.bool)]
    means.append(off.mean().item())
    spreads.append(off.std().item())
    print(f"{n_wires} qubits: mean {means[-1]:.4f}, spread {spreads[-1]:.4f}")
assert all(later < earlier for earlier, later in itertools.pairwise(spreads))

figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
axis.semilogy(sizes, spreads, "o-", color=PURPLE, label="spread of the overlaps")
axis.semilogy(sizes, [2.0**-n for n in sizes], ":", color=GREY, label="$2^{-n}$")
axis.set(xlabel="qubits", ylabel="standard deviation")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## In a model, beside its twins
#
# A small model reads bytes of the Python manual: a recurrence, then kernel attention. The first twin is the closed form
# of the unentangled kernel with as many trainable numbers as the circuit has weights, to within one hidden unit; the
# second is ordinary scaled dot-product attention on the same angles; "off" is a plain average of all earlier tokens.

# %%
corpus = load_corpus("python-docs")


def windows(text: bytes, count: int, generator: torch.Generator, length: int = 48) -> torch.Tensor:
    """Random pieces of a text as token ids."""
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    starts = torch.randint(len(tokens) - length, (count,), generator=generator)
    return torch.stack([tokens[start : start + length] for start in starts])


def train(steps: int = 150, **changes: str) -> tuple[list[float], float, int]:
    """Bits per byte at each step and on 128 pieces of unseen text; and the numbers in the part that the mode swaps."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    entry = {"kind": "kernel_attention", "n_wires": 3, "depth": 2, "d_value": 32, **changes}
    model = QLMForCausalLM(QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}, entry]))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        ids = windows(corpus.train, 8, draw)
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / math.log(2))
    fresh = windows(corpus.valid, 128, torch.Generator().manual_seed(1))
    with torch.no_grad():
        held_out = model.eval()(fresh, labels=fresh).loss.item() / math.log(2)
    core = model.model.layers[1].core
    return losses, held_out, 0 if core is None else core.n_parameters


runs = {
    "circuit": train(quantum="circuit"),
    "product twin": train(quantum="twin"),
    "dot-product twin": train(quantum="twin", twin="dot"),
    "off": train(quantum="off"),
}
for name, (_, held_out, size) in runs.items():
    print(f"{name:17} {held_out:.3f} bits per byte on unseen text, {size} numbers in the swapped part")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
colours = dict(zip(runs, (PURPLE, ORANGE, "#2a7f86", GREY), strict=True))
for name, (losses, held_out, _) in runs.items():
    smooth = torch.tensor(losses).unfold(0, 10, 1).mean(1)
    left.plot(range(10, len(losses) + 1), smooth.numpy(), color=colours[name], label=name)
    right.bar(name, held_out, color=colours[name])
left.set(xlabel="step", ylabel="bits per byte (mean of 10 steps)", title="Training")
left.legend(frameon=False)
lowest = min(held_out for _, held_out, _ in runs.values())
right.set(ylim=(lowest - 0.3, None), title="Unseen text (axis does not start at 0)", ylabel="bits per byte")
right.tick_params(axis="x", labelrotation=15)
plt.show()

gap = runs["circuit"][1] - runs["product twin"][1]
print(f"circuit minus product twin on unseen text: {gap:+.3f} bits per byte")
assert runs["circuit"][1] == max(held_out for _, held_out, _ in runs.values())

# %% [markdown]
# Here the circuit comes last. The closed form of the unentangled kernel does better with about as many trainable
# numbers, so does ordinary attention, and so does a plain average that compares nothing at all. One seed, a small model
# and a short run settle no more than that; what a kernel is worth on a task of yours is found the same way, with its
# twins beside it.
