# %% [markdown]
# # Grover's search, from any distribution
#
# You know PyTorch; no quantum computing is needed beyond the first tutorial. A language model offers a distribution
# over next tokens, and we want only tokens that pass a test. Classically we draw until one passes, or set the others'
# probabilities to zero. Quantum *amplitude amplification* is the third way. We build its circuit, run it on a
# simulator, on a matrix product state and on a noisy device, put it into a model, and count what it costs.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import LogitsProcessorList

from backends import open_backend
from circuits.library import (
    amplitude_loading,
    fixed_point_success,
    fixed_point_width,
    grover,
    loading_angles,
    optimal_iterations,
    success_probability,
)
from qlm import ByteTokenizer, QLMConfig, QLMForCausalLM
from qlm.amplification import AmplifiedLogits
from qlm.amplification_cost import FixedPoint, KnownShare, cost_table
from qlm.data import RandomByteWindows, load_corpus

PURPLE, ORANGE, GREEN, GREY = "#5b2a86", "#d9822b", "#3a7d44", "0.6"

# %% [markdown]
# ## A distribution as a state
#
# A state of n wires has 2^n *amplitudes*, and measuring it gives outcome i with the square of amplitude i. So a
# distribution p over 8 tokens fits on 3 wires, with amplitudes sqrt(p). The circuit that makes it is a binary tree:
# wire 0 splits the probability between the first and the second half, wire 1 splits each half, and so on.
# `loading_angles` turns probabilities into the rotations' angles, with gradients, and an entry of exactly 0 is fine.

# %%
prior = torch.tensor([0.30, 0.22, 0.05, 0.10, 0.00, 0.18, 0.12, 0.03], dtype=torch.float64)
print(amplitude_loading(2).draw())

simulator = open_backend("statevector")
loaded = simulator.state(amplitude_loading(3), loading_angles(prior)[None]).values[0]
print("largest error of an amplitude:", f"{(loaded - prior.sqrt()).abs().max().item():.0e}")
assert torch.allclose(loaded.real, prior.sqrt(), atol=1e-12)

# %% [markdown]
# ## Two reflections are a rotation
#
# Say tokens 3, 6 and 7 pass the test: together they have a quarter of the probability. One *iteration* of the search
# flips the sign of their amplitudes (the *oracle*) and then reflects the state about the state it started in. Two
# reflections make a rotation: the state turns from "mostly wrong" towards "right" by twice the angle t = arcsin
# sqrt(p_good) each time, so after k iterations the right tokens hold sin^2((2k + 1) t). Ratios among them stay what
# they were. Turning on turns past the goal: more is not better.
#
# With 4 tokens, one marked, and a uniform start, a single iteration finds it with certainty:

# %%
print(grover([0.25] * 4, {3}, 1).draw())

accepted = {3, 6, 7}
p_good = prior[sorted(accepted)].sum().item()
outcomes = {k: simulator.probabilities(grover(prior, accepted, k)).values[0].double() for k in (0, 1, 2)}
for k, outcome in outcomes.items():
    found = outcome[sorted(accepted)].sum().item()
    print(f"{k} iterations: accepted {found:.4f}, formula {success_probability(p_good, k):.4f}")
    assert math.isclose(found, success_probability(p_good, k), abs_tol=1e-6)
assert torch.allclose(outcomes[1][sorted(accepted)], prior[sorted(accepted)] / p_good, atol=1e-6)
print("best number of iterations:", optimal_iterations(p_good))

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, layout="constrained")
for axis, (k, outcome) in zip(axes, outcomes.items(), strict=True):
    colours = [PURPLE if token in accepted else GREY for token in range(8)]
    axis.bar(range(8), outcome.numpy(), color=colours)
    axis.set(xlabel="token", title=f"{k} iteration{'' if k == 1 else 's'}", xticks=range(8))
axes[0].set_ylabel("probability")
figure.suptitle("Accepted tokens in purple: amplified with their ratios kept, then turned past the goal", fontsize=11)
plt.show()

# %% [markdown]
# ## When p_good is not known
#
# The best k depends on p_good. *Fixed-point* search (Yoder, Low and Chuang, 2014) rotates by other phases than a sign
# flip, chosen so that success, once p_good is above a small threshold, never falls below 1 - delta^2 again. The price
# is a few more calls of the oracle.

# %%
iterations, delta = 4, 0.3
shares = np.linspace(0.001, 1, 400)
width = fixed_point_width(iterations, delta)
fixed = [fixed_point_success(share, iterations, delta) for share in shares]
assert min(value for share, value in zip(shares, fixed, strict=True) if share >= width) >= 1 - delta**2 - 1e-9

figure, axis = plt.subplots(figsize=(7.5, 3.5), layout="constrained")
axis.plot(
    shares, [success_probability(share, iterations) for share in shares], color=GREY, label="Grover, 4 iterations"
)
axis.plot(shares, fixed, color=PURPLE, label="fixed point, 4 iterations")
axis.axhline(1 - delta**2, color=ORANGE, linestyle=":", label="1 - delta^2")
axis.axvline(width, color=GREEN, linestyle="--", label=f"threshold, p_good = {width:.3f}")
axis.set(xlabel="p_good before the search", ylabel="p_good after it")
figure.legend(frameon=False, loc="outside right center", fontsize="small")
plt.show()

# %% [markdown]
# ## Three engines, one circuit
#
# The same circuit on a matrix product state (exact here, because three wires fit its bonds) and on a fake five-qubit
# IBM device with that device's noise and 2000 measurements. Loading, un-loading and loading again takes many two-wire
# gates, each a little wrong: the noisy device gives some of the amplification back.

# %%
two_wires = grover([0.1, 0.4, 0.25, 0.25], {2}, 1)
for name in ("statevector", "quimb:mps", "ibm:fake_manila?shots=2000"):
    for label, circuit, marked in (("2 wires", two_wires, [2]), ("3 wires", grover(prior, accepted, 1), [3, 6, 7])):
        estimate = open_backend(name).probabilities(circuit, seed=1)
        success = estimate.values[0, marked].sum().item()
        # The states' errors are not independent: where one is counted, another is not. Their sum is one yes or no.
        error = 0.0 if estimate.shots is None else math.sqrt(success * (1 - success) / estimate.shots)
        print(f"{name:28}{label}: {len(circuit.ops):3} gates, accepted {success:.3f} +- {error:.3f}")
        if name.startswith("ibm"):
            assert 0.25 < success < 0.98
        else:
            assert success > 0.9999

# %% [markdown]
# ## A layer of a language model
#
# The block `grover_memory` keeps 8 learned vectors, the slots. Each token scores them; the softmax of the scores is
# loaded, the last two slots are amplified by one iteration whose two phases are trained, and the vectors are averaged
# with the measured probabilities. Its twin, with as many parameters, is a soft mask: the same two slots get more
# weight by a learned amount. "off" does not amplify at all. All three train on the reference manual of Python.

# %%
corpus = load_corpus("python-docs", context=48)
windows = RandomByteWindows(corpus.train, 48, 8 * 100, seed=0)
held_out = RandomByteWindows(corpus.valid, 48, 64, seed=1)


def batch_of(source: RandomByteWindows, indices: range) -> dict[str, torch.Tensor]:
    """Stack some windows."""
    rows = [source[index] for index in indices]
    return {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}


def train(mode: str) -> tuple[QLMForCausalLM, list[float], float]:
    """Return the model, the loss of each step and the loss on held-out text, in bits per byte."""
    torch.manual_seed(0)
    blocks = [{"kind": "harmonic"}, {"kind": "grover_memory"}, {"kind": "harmonic"}]
    model = QLMForCausalLM(QLMConfig(d_model=32, blocks=blocks, quantum=mode)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(100):
        loss = model(**batch_of(windows, range(8 * step, 8 * step + 8))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / math.log(2))
    model.eval()
    with torch.no_grad():
        return model, losses, model(**batch_of(held_out, range(64))).loss.item() / math.log(2)


trained = {mode: train(mode) for mode in ("circuit", "twin", "off")}
for mode, (model, losses, held) in trained.items():
    report = model.reports()["1.grover_memory"]
    print(
        f"{mode:8} {losses[0]:.2f} -> {held:.3f} bits per byte on held-out text; accepted slots "
        f"{report.mean_p_good:.2f} -> {report.mean_success:.2f}; circuits in the last call {report.executions}"
    )
    assert held < losses[0] - 2
spread = max(held for _, _, held in trained.values()) - min(held for _, _, held in trained.values())
print(f"spread between the three: {spread:.3f} bits per byte")
assert trained["twin"][2] < trained["circuit"][2] + 0.02

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (mode, (_, losses, _)), colour in zip(trained.items(), (PURPLE, ORANGE, GREY), strict=True):
    axis.plot(np.convolve(losses, np.ones(8) / 8, "valid"), color=colour, label=mode)
axis.set(xlabel="step", ylabel="bits per byte (mean of 8 steps)", title="The same model with and without its circuit")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# What the block adds is a learned curve from p_good to the split between two groups of slots. With Grover's own
# phases it rises to 1 at p_good = 1/4 and falls beyond; the twin's never falls, is cheaper, and does as well here or
# better. Nothing shows that the circuit is needed.
#
# ## Constrained text
#
# `AmplifiedLogits` is a logits processor for `generate()`. It keeps the 16 likeliest next bytes and lets through what
# a regular expression accepts, here vowels. `method="circuit"` loads, amplifies and measures, and repeats
# where the measured byte is not accepted. The default, `method="mask"`, sets the other bytes to zero and
# renormalises. Both give the same distribution, here the same text from the same seed; only one of them needs a quantum
# computer.

# %%
model = trained["circuit"][0]
tokenizer = ByteTokenizer()
prompt = tokenizer(["The "], return_tensors="pt").input_ids
made, processors = {}, {}
for method in ("mask", "circuit"):
    torch.manual_seed(0)
    processors[method] = AmplifiedLogits("[aeiou]", n_wires=4, method=method)
    ids = model.generate(
        prompt,
        max_new_tokens=30,
        do_sample=True,
        top_k=0,
        logits_processor=LogitsProcessorList([processors[method]]),
    )
    made[method] = tokenizer.decode(ids[0])
    print(f"{method:8} {made[method]!r}")
assert set(made["circuit"][4:]) <= set("aeiou")
assert made["mask"] == made["circuit"]

steps = processors["circuit"].steps
print("\nposition  p_good  oracle calls  success  attempts  rejection sampling  dropped mass")
for step in steps[:8]:
    print(
        f"{step.position:8}  {step.p_good:6.3f}  {step.oracle_calls:12}  {step.success_probability:7.3f}  "
        f"{step.expected_attempts:8.2f}  {step.rejection_attempts:18.2f}  {step.dropped_mass:12.3f}"
    )
    assert math.isclose(step.success_probability, KnownShare().success(step.p_good), abs_tol=1e-5)

# %% [markdown]
# ## What it costs
#
# Grover's search calls the oracle about pi / (4 sqrt(p_good)) times where rejection sampling draws 1 / p_good times:
# the celebrated square root. In the table each attempt also counts one check of the token that came out. The mask
# calls no oracle, because a simulator has the list of accepted tokens in front of it, as it must, to simulate the
# oracle at all.

# %%
rows = cost_table([0.5, 0.25, 0.1, 0.01, 0.001], n_wires=4, fixed=FixedPoint(p_least=0.01, delta=0.3))
print(f"{'p_good':>7} {'method':12} {'oracle calls':>12} {'success':>8} {'calls until success':>20} {'gates':>6}")
for row in rows:
    print(
        f"{row.p_good:7} {row.method:12} {row.oracle_calls:12} {row.success_probability:8.3f} "
        f"{row.expected_calls:20.1f} {row.gates:6}"
    )

shares = np.geomspace(0.001, 0.6, 60)
curves = cost_table(shares.tolist(), n_wires=4, fixed=FixedPoint(p_least=0.01, delta=0.3))
figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
for method, colour in (("rejection", GREY), ("grover", PURPLE), ("fixed point", GREEN)):
    chosen = [row for row in curves if row.method == method]
    axis.loglog([row.p_good for row in chosen], [row.expected_calls for row in chosen], color=colour, label=method)
axis.plot([step.p_good for step in steps], [step.rejection_attempts for step in steps], "o", color=GREY, ms=4)
axis.set(xlabel="p_good", ylabel="calls until an accepted token")
axis.legend(frameon=False, title="dots: the text above")
plt.show()

# %% [markdown]
# The square root is real, and it counts *oracle calls on a quantum computer*: it pays only where testing a candidate
# is a circuit over an astronomically large set. A next token is not that case. The set is a list of 16 or of 50,000,
# the model has already computed every probability, and the mask reads the answer off: exact, at once, without a gate.
# On a simulator amplification can never beat it, which is why the mask is the default, and the circuit is the option.
