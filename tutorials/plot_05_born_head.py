# %% [markdown]
# # A head that is measured
#
# The last layer of a language model turns a hidden state into a probability for each token, usually by a softmax of
# scores. Quantum mechanics has a rule of its own: every outcome has an *amplitude*, a complex number, and its
# probability is the square of the amplitude's size (Born's rule). Here a circuit's outcomes are the tokens. We fit a
# distribution, see what phases do, run on a device with noise, train a small model with such a head, and put a softmax
# of the same size beside it.

# %%
import re
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import torch

from backends import open_backend
from circuits.library import born_machine, conditional_born_machine
from qlm import QLMConfig, QLMForCausalLM
from qlm.data import load_corpus
from qlm.heads.born_circuit import BornCircuit, BornCircuitConfig
from qlm.probabilities import ProbabilityLayer

PURPLE, ORANGE, GREY = "#5b2a86", "#d9822b", "0.75"
torch.manual_seed(0)

# %% [markdown]
# ## A circuit is a distribution
#
# Measuring 3 wires gives 3 bits, one of 8 outcomes. `born_machine` rotates the wires by trainable angles and ties them
# together with CNOTs; the chances of the outcomes sum to 1 whatever the angles are, so nothing has to be normalised.

# %%
machine = born_machine(3, depth=2)
print(machine.draw())
print(machine.n_weights, "weights")

# %% [markdown]
# Let the outcomes be the eight commonest letters of a real text, the manual of Python, and fit their frequencies: we
# maximise the log-probability of the letters, which is what training a language model does.

# %%
text = re.sub(r"[^a-z]+", " ", load_corpus("python-docs").train.decode().lower())
common = [(letter, n) for letter, n in Counter(text.replace(" ", "")).most_common(8)]
letters, target = (
    "".join(letter for letter, _ in common),
    torch.tensor([float(n) for _, n in common], dtype=torch.float64),
)
target /= target.sum()
layer = ProbabilityLayer(machine)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
for _ in range(200):
    optimizer.zero_grad()
    divergence = (target * (target / layer(torch.zeros(1, 0, dtype=torch.float64))[0]).log()).sum()
    divergence.backward()
    optimizer.step()
print(f"{letters}: Kullback-Leibler divergence from the text {float(divergence.detach()):.1e} nats")
assert divergence < 1e-3

# %% [markdown]
# ## On other machines
#
# The same circuit on a matrix product state (`quimb:mps`), and as 2000 measurements on a simulated IBM device with the
# errors of a real one (`ibm:fake_manila`). Counts come with error bars, which say how often we measured. The noise of
# the device is another matter: it pulls the distribution towards a flat one, by more than the bars.

# %%
weights, fitted = layer.weights.detach().double(), {}
for spec in ("statevector", "quimb:mps", "ibm:fake_manila?shots=2000"):
    fitted[spec] = open_backend(spec).probabilities(machine, None, weights, seed=0)
exact, noisy = fitted["statevector"].values[0], fitted["ibm:fake_manila?shots=2000"].values[0]
assert torch.allclose(fitted["quimb:mps"].values[0], exact, atol=1e-6)
distance = {name: float((chances - target).abs().sum() / 2) for name, chances in (("exact", exact), ("noisy", noisy))}
print("share of probability in the wrong place:", {name: round(value, 4) for name, value in distance.items()})
flat = {name: float((chances - 1 / 8).abs().sum() / 2) for name, chances in (("exact", exact), ("noisy", noisy))}
assert flat["noisy"] < flat["exact"]

figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
places, stderr = np.arange(8), fitted["ibm:fake_manila?shots=2000"].stderr[0]
axes.bar(places, target.tolist(), width=0.85, color=GREY, label="letters of the text")
axes.plot(places - 0.12, exact, "o", color=PURPLE, label="fitted circuit, exact")
axes.errorbar(places + 0.12, noisy, stderr, fmt="s", color=ORANGE, capsize=3, label="on fake_manila, 2000 shots")
axes.set(xticks=places, xticklabels=list(letters), ylabel="probability", ylim=(0, 0.3))
figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
plt.show()

# %% [markdown]
# ## What phases do
#
# To depend on what came before, a circuit must read a vector. `conditional_born_machine` encodes it first: one rotation
# per wire sets magnitudes (`ry`), one sets phases (`rz`). A phase cannot be seen by measuring at once. It matters where
# later gates let amplitudes interfere: they add up before they are squared, and can cancel. No sum of probabilities
# can do that.

# %%
reader = conditional_born_machine(2, depth=1)
print(reader.draw())
turn = torch.linspace(-torch.pi, torch.pi, 100)
inputs = torch.stack([torch.full_like(turn, 1.2), torch.full_like(turn, 2.0), turn, torch.zeros_like(turn)], 1)
still, mixing = torch.zeros(reader.n_weights), torch.tensor([0.4, 1.1, -0.3, 0.8, 0.5, -0.9, 1.4, 0.6])
backend = open_backend("statevector")
without, through = (backend.probabilities(reader, inputs, w).values for w in (still, mixing))
assert without.std(0).max() < 1e-6
assert through.std(0).max() > 0.05

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for panel, chances, title in zip(axes, (without, through), ("U only permutes outcomes", "U mixes"), strict=True):
    for outcome, style in enumerate(("-", "--", "-.", ":")):
        panel.plot(turn, chances[:, outcome], style, color=PURPLE, label=f"{outcome:02b}")
    panel.set(title=title, xlabel="phase of wire 0 (radians)")
axes[0].set_ylabel("probability")
axes[1].legend(frameon=False, title="outcome", loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## As the head of a model
#
# `head={"kind": "born_circuit"}` in a model's config replaces the softmax. Our tokens are 26 letters and the blank, so
# 5 wires are enough: 32 outcomes, 5 of which name no token. Their probability *leaks*; it is reported, and the rest is
# divided by what is left. The head returns log-probabilities, so the loss, `generate()` and everything else work as
# they are. The twin (`"quantum": "twin"`) is a low-rank softmax with as nearly the same number of parameters as a
# softmax can have. The usual linear head is there too, with many more.

# %%
ids = torch.tensor([" abcdefghijklmnopqrstuvwxyz".index(letter) for letter in text])
train_ids, valid_ids = ids[:-3300], ids[-3300:].reshape(100, 33)


def build(head: dict[str, object]) -> QLMForCausalLM:
    torch.manual_seed(0)
    blocks = [{"kind": "harmonic"}]
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return QLMForCausalLM(QLMConfig(vocab_size=27, d_model=32, blocks=blocks, head=head, **special))


def train(model: QLMForCausalLM, steps: int = 150) -> list[float]:
    """Train on letters; the loss of each step in bits per letter."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        first = torch.randint(len(train_ids) - 33, (16, 1), generator=generator)
        batch = train_ids[first + torch.arange(33)]
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / 0.6931)
    return losses


curves, bits, models = {}, {}, {}
for name, head in {
    "measured circuit": {"kind": "born_circuit", "depth": 2},
    "its twin, a softmax": {"kind": "born_circuit", "depth": 2, "quantum": "twin"},
    "linear": {"kind": "linear"},
}.items():
    model = models[name] = build(head)
    curves[name] = train(model.train())
    with torch.no_grad():
        bits[name] = float(model.eval()(valid_ids, labels=valid_ids).loss) / 0.6931
    size = sum(parameter.numel() for parameter in model.lm_head.parameters())
    print(f"{name:20} {size:5} parameters in the head, {bits[name]:.3f} bits per letter")

leaked = models["measured circuit"].reports()["head.born_circuit"].leaked
print(f"leaked on average: {leaked:.1%}")

figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, losses), color, style in zip(curves.items(), (PURPLE, ORANGE, "0.5"), ("-", "--", ":"), strict=True):
    smooth = torch.tensor(losses).unfold(0, 10, 1).mean(-1)
    axes.plot(torch.arange(len(smooth)) + 5, smooth, style, color=color, label=name)
axes.set(xlabel="step", ylabel="bits per letter", title="Training, mean of 10 steps")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The circuit learns, and at equal size the softmax is clearly better on this text. A likely reason: to give a
# token next to no probability, the circuit must make its amplitude cancel almost exactly, for each of many tokens at
# once and with ten angles per hidden state; a softmax only needs a low score. We keep the comparison because it is the
# point: a quantum part is worth what it adds to its twin.

# %%
behind = bits["measured circuit"] - bits["its twin, a softmax"]
print(f"the circuit is {behind:.3f} bits per letter behind its twin")
assert behind > 0.1
assert bits["measured circuit"] < curves["measured circuit"][0] - 0.5

# %% [markdown]
# ## Sampling by measuring
#
# A softmax needs all scores before it can draw a token. A circuit is simply measured: each shot is a token. Shots that
# give an outcome without a token are thrown away, counted, and taken again. Below, the text "the" is followed by 4000
# measurements of the trained head, beside the probabilities that the simulator computes.

# %%
born = models["measured circuit"]
prompt = torch.tensor([[" abcdefghijklmnopqrstuvwxyz".index(letter) for letter in " the"]])
with torch.no_grad():
    hidden = born.model(prompt).last_hidden_state[:, -1]
    computed = born.lm_head(hidden)[0].exp()
measured = born.lm_head.sample(hidden, shots=4000, seed=0)
shares = torch.bincount(measured.tokens[0], minlength=27) / 4000
print(f"{measured.measurements} measurements, {measured.leaked} of them leaked")
assert ((shares - computed).abs() < 5 * (computed * (1 - computed) / 4000).sqrt() + 1e-3).all()

figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.bar(np.arange(27), computed.tolist(), color=GREY, label="computed")
axes.plot(np.arange(27), shares, "o", color=PURPLE, markersize=4, label="measured, 4000 tokens")
axes.set(xticks=range(27), xticklabels=["_", *"abcdefghijklmnopqrstuvwxyz"], ylabel="probability after ' the'")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Real vocabularies
#
# A circuit of n wires has `2**n` outcomes, and simulating it costs as much: the head stops at 10 wires. Born's rule
# goes on without a circuit. `born_low_rank` takes amplitudes from a complex matrix times a short vector, `born_mps`
# from a chain of small tensors (a matrix product state) over the digits of the token's number. No quantum computer is
# involved; these are classical heads that borrow the rule. What the rule buys: the sum of all squares is a small
# quadratic form, which is computed once for a whole batch; after that the log-probability of *one* token comes without
# a sum over the vocabulary, exactly. A softmax has no such shortcut.

# %%
hidden, targets = torch.randn(4, 32), torch.tensor([0, 7, 9_999, 32_767])
for head in ({"kind": "born_low_rank", "rank": 16}, {"kind": "born_mps", "bond": 16}):
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(vocab_size=32_768, d_model=32, blocks=[], head=head))
    with torch.no_grad():
        alone, all_of_them = model.lm_head.log_prob(hidden, targets), model.lm_head(hidden)
    assert torch.allclose(alone, all_of_them[torch.arange(4), targets], atol=1e-4)
    assert torch.allclose(all_of_them.exp().sum(-1), torch.ones(4), atol=1e-5)
    print(f"{head['kind']:14} {sum(p.numel() for p in model.lm_head.parameters()):9,} parameters for 32,768 tokens")

# %% [markdown]
# Their twins read the very same parameters as scores of a softmax: `"quantum": "twin"`. The benchmark
# `python -m benchmarks.born_head` trains all of them on a vocabulary of that size and prints bits per token beside
# tokens per second. A rule that is cheaper to normalise is not therefore a rule that predicts better: a squared
# amplitude becomes small only by hitting zero, while a softmax reaches tiny probabilities by taking logarithms. Look at
# both columns.

# %%
try:
    BornCircuit(32, 2000, BornCircuitConfig())
except ValueError as error:
    print(error)
