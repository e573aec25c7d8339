# %% [markdown]
# # A circuit that sends tokens to experts
#
# A *mixture of experts* keeps several small networks and lets each token use only one or two of them. Somebody has to
# decide which: the *router*, in classical models a softmax over scores. Here the router is a quantum circuit. We see
# how a measurement becomes a choice, run it on a simulator, on matrix product states and on a simulated IBM device with
# noise, train a small language model with it, and put the softmax router beside it.

# %%
import matplotlib.pyplot as plt
import torch

from backends import open_backend
from circuits.library import vqc_router
from qlm import QLMConfig, QLMForCausalLM
from qlm.data import load_corpus
from qlm.evaluation import bits_per_byte
from qlm.experts.choice import LoadBalance, choose
from qlm.experts.router import CircuitRouter, renormalise
from qlm.intervals import t_interval

PURPLE, ORANGE = "#5b2a86", "#d9822b"
torch.manual_seed(0)

# %% [markdown]
# ## A measurement is a choice
#
# Measuring n wires gives n bits, that is one of `2**n` numbers. Let each number name an expert. The circuit decides how
# likely each one is: first it rotates every wire by an angle that comes from the token, then trainable rotations and
# CNOTs mix the wires. For four experts two wires are enough.

# %%
circuit = vqc_router(2, depth=2)
print(circuit.draw())
print(circuit.n_inputs, "angles per token,", circuit.n_weights, "weights")

# %% [markdown]
# The probabilities of all outcomes sum to 1, so they are a routing distribution as they stand. With three experts the
# fourth outcome names nobody: its probability *leaks*. We renormalise the rest and report what leaked.

# %%
angles = torch.tensor([[0.4, 2.1], [1.5, -0.6], [-2.3, 0.9]])
for n_experts in (4, 3):
    torch.manual_seed(1)
    router = CircuitRouter(circuit, n_experts, "statevector")
    torch.nn.init.normal_(router.layer.weights)
    routing = renormalise(router(angles))
    print(n_experts, "experts\n", routing.g.detach().numpy().round(3), "leaked:", routing.leaked.numpy().round(3))
    assert torch.allclose(routing.g.sum(1), torch.ones(3))

# %% [markdown]
# ## The same router on four machines
#
# Another engine is another string. The simulator computes the probabilities. A matrix product state (`quimb:mps`) keeps
# the state as a chain of small tensors and says what it cut off. Devices give *counts*, from which we
# take relative frequencies with error bars. A device with noise (`ibm:fake_manila`, five qubits with the errors of a
# real machine) is off by more than its error bars explain: they tell how often we measured, not how well.

# %%
inputs, weights = angles.double(), router.layer.weights.detach().double()
answers = {}
for name, spec, shots in (
    ("simulator", "statevector", None),
    ("matrix product state", "quimb:mps?max_bond=4", None),
    ("counts", "aer", 20000),
    ("counts, noisy device", "ibm:fake_manila", 20000),
):
    seed = None if shots is None else 1
    answers[name] = open_backend(spec).probabilities(circuit, inputs, weights, shots=shots, seed=seed)

exact = answers["simulator"].values
assert torch.allclose(answers["matrix product state"].values, exact, atol=1e-9)
off = {name: (answer.values - exact).abs() for name, answer in answers.items()}
for name in ("counts", "counts, noisy device"):
    in_errors = float((off[name] / answers[name].stderr).max())
    print(f"{name}: off by at most {float(off[name].max()):.3f}, or {in_errors:.1f} standard errors")
assert (off["counts"] < 4 * answers["counts"].stderr).all()
assert (off["counts, noisy device"] > 5 * answers["counts, noisy device"].stderr).any()

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
for token, panel in enumerate(axes):
    for place, (name, answer) in enumerate(answers.items()):
        x = [expert + 0.2 * (place - 1.5) for expert in range(4)]
        heights, errors = answer.values[token].tolist(), answer.stderr[token].tolist()
        panel.bar(x, heights, 0.2, yerr=errors, color=(PURPLE, "#9d7bbd", "0.6", ORANGE)[place], label=name)
    panel.set(title=f"token {token}", xlabel="expert", xticks=range(4))
axes[0].set_ylabel("probability")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# ## From probabilities to a choice
#
# A token takes its `top_k` likeliest experts, or, with `mass` below 1, as few as hold that share of its probability.
# Taking the largest has no slope, so the backward pass uses that of the soft mixture: a chosen expert whose output
# lowered the loss becomes likelier.

# %%
g = torch.tensor([[0.90, 0.06, 0.03, 0.01], [0.40, 0.35, 0.15, 0.10]])
choice = choose(g, torch.zeros(4), top_k=3, mass=0.7)
for row, experts, kept, shares in zip(g, choice.experts, choice.kept, choice.weights, strict=True):
    print(row.numpy(), "->", {int(e): round(float(w), 2) for e, w in zip(experts[kept], shares[kept], strict=True)})

# %% [markdown]
# Left alone, a router sends most tokens to a few favourites, and the other experts never learn. A *bias* per expert,
# added when choosing and only then, falls while an expert has too many tokens and rises while it has too few. It needs
# no extra term in the loss, and the weights of the chosen experts do not feel it.

# %%
balance, loads = LoadBalance(8, step=0.05), []
for _ in range(150):
    skewed = torch.softmax(torch.linspace(2, -2, 8) + 0.5 * torch.randn(1024, 8), 1)
    counts = choose(skewed, balance.bias, top_k=2, mass=1.0).load(8)
    balance.update(counts, skewed)
    loads.append(counts / counts.sum())
shares = torch.stack(loads)

figure, panel = plt.subplots(figsize=(7, 3.2), layout="constrained")
for expert in range(8):
    panel.plot(shares[:, expert], color=plt.get_cmap("viridis")(expert / 8), label=f"expert {expert}")
panel.axhline(1 / 8, color="0.4", linestyle=":")
panel.set(xlabel="training step", ylabel="share of the choices", title="A skewed router evens out")
panel.legend(frameon=False, ncols=2, fontsize="small")
plt.show()
print(f"largest share: {float(shares[0].max()):.2f} at first, {float(shares[-20:].max(1).values.mean()):.2f} at last")

# %% [markdown]
# ## In a language model, beside its twin
#
# A small byte model: a recurrence, then four experts of which each token takes one, on the reference manual that comes
# with Python. `quantum="twin"` builds the same model with a softmax router of as many parameters as the circuit has
# weights, to within one hidden unit; `"off"` has no router, and every token takes the same expert. Three seeds each.

# %%
corpus = load_corpus("python-docs")
text = torch.frombuffer(bytearray(corpus.train), dtype=torch.uint8).long()
EXPERTS = {"kind": "vqc_experts", "n_experts": 4, "depth": 2, "top_k": 1, "shared": 0}


def train(mode: str, seed: int, steps: int = 60) -> tuple[QLMForCausalLM, list[float]]:
    """Train a small model on random windows of the text; return it with its losses in bits per byte."""
    torch.manual_seed(seed)
    config = QLMConfig(d_model=24, blocks=[{"kind": "harmonic"}, EXPERTS], quantum=mode)
    model = QLMForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(text) - 48, (8,)).tolist()
        ids = torch.stack([text[start : start + 48] for start in starts])
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / torch.log(torch.tensor(2.0)).item())
    return model.eval(), losses


results: dict[str, list[float]] = {}
curves: dict[str, list[float]] = {}
for mode in ("circuit", "twin", "off"):
    runs = [train(mode, seed) for seed in range(3)]
    results[mode] = [bits_per_byte(model, corpus.valid[:4096], context=128) for model, _ in runs]
    model, curves[mode] = runs[-1]
    report = model.reports()["1.vqc_experts"]
    print(f"{mode}: bits per byte {[round(bits, 3) for bits in results[mode]]}, {report.executions} circuits in a call")
    print(f"    load {[round(s, 2) for s in report.load]}, entropy of the routing {report.routing_entropy:.2f} nats")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for place, (mode, color) in enumerate((("circuit", PURPLE), ("twin", ORANGE), ("off", "0.6"))):
    left.plot(curves[mode], color=color, label=mode)
    right.plot([place] * 3, results[mode], "o", color=color)
left.set(xlabel="step", ylabel="bits per byte", title="Training (last seed)")
left.legend(frameon=False)
right.set(
    xticks=range(3), xticklabels=results, ylabel="bits per byte", title="Validation text, three seeds", xlim=(-0.5, 2.5)
)
plt.show()

difference = t_interval([one - other for one, other in zip(results["circuit"], results["twin"], strict=True)])
means = {mode: sum(bits) / len(bits) for mode, bits in results.items()}
print("mean bits per byte:", {mode: round(mean, 2) for mode, mean in means.items()})
print(f"circuit minus twin: {difference.mean:+.2f}, 95 % interval [{difference.low:+.2f}, {difference.high:+.2f}]")
assert means["off"] < min(means["circuit"], means["twin"])

# %% [markdown]
# What does it mean? Below 0 the circuit is ahead of its twin, above 0 behind; an interval that holds 0, as one of three
# seeds mostly does, cannot tell them apart. Both lose to the model without a router. That one spends the same work per
# token, but its single expert learns from every token, while each of the four sees only its share: in a run this short,
# routing costs more than it brings. Experts pay off in long runs of large models, where they add parameters without
# adding work, and a circuit has to be better than a softmax there to be worth its executions, one for each token.
