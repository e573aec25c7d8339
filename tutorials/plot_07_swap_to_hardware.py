# %% [markdown]
# # From the simulator to a device, without fear
#
# Running a circuit on a real machine is one string away, and so are a bill and a job that nobody finds again. We walk
# the whole path on `ibm:fake_manila`, a simulated five-qubit IBM device with the errors of the real one: what a request
# will cost, a budget that refuses, a run that is allowed, a process that is killed in the middle of it, error bars, and
# what error mitigation buys for its price. Nothing here needs an account; the last lines say what changes with one.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from backends import open_backend
from backends.ibm import IBM
from backends.ledger import BudgetError, open_ledger
from circuits import Circuit, Input, Op, Weight, Z
from qlm.cli import app
from qlm.quantum import QuantumLayer

PURPLE, TEAL, ORANGE = "#5b2a86", "#2a7f86", "#d9822b"
torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
LEDGER = str(folder / "ledger.sqlite3")

# %% [markdown]
# ## One circuit, another string
#
# Three wires: an input angle, then twelve CNOTs that mix and unmix them. We ask for the correlation of all three wires
# as the angle sweeps a half turn.

# %%
layer = (Op("cx", (0, 1)), Op("cx", (1, 2)), Op("rz", (2,), (0.3,)), Op("cx", (1, 2)), Op("cx", (0, 1)))
mixing = tuple(op for _ in range(3) for op in (*layer, Op("ry", (1,), (0.2,))))
circuit = Circuit(3, (Op("ry", (0,), (Input(0),)), *mixing))
observable = Z(0) @ Z(1) @ Z(2)
angles = torch.linspace(0, torch.pi, 9, dtype=torch.float64)[:, None]
print(circuit.draw())

ideal = open_backend("statevector").expectations(circuit, angles, None, (observable,))
noisy = open_backend("ibm:fake_manila?shots=1000").expectations(circuit, angles, None, (observable,), seed=0)
off = (noisy.values - ideal.values).abs().mean()
print(f"the device is off by {off:.3f} on average, with error bars of {noisy.stderr.mean():.3f}")

# %% [markdown]
# ## What will it cost?
#
# A device bills seconds of its time. `estimate` takes the arguments of `expectations` and sends nothing: the circuit is
# compiled for the device, and jobs, circuits, shots and seconds are counted.

# %%
device = IBM("fake_manila", shots=1000, ledger=LEDGER)
cost = device.estimate(circuit, angles, None, (observable,))
print(cost)
assert cost.circuits == 9

# %% [markdown]
# ## A budget that refuses
#
# A real device does nothing until `allow_qpu_seconds` says how much a run may take in all. With an allowance a fake
# device counts seconds in the same way: a rehearsal. Three are too few, and the refusal says by how much. Nothing was
# sent, and nothing was written down.

# %%
strict = device.with_options(allow_qpu_seconds=3, run="tutorial")
refusal = None
try:
    strict.expectations(circuit, angles, None, (observable,), seed=0)
except BudgetError as error:
    refusal = error
print(refusal)
assert refusal is not None
assert refusal.left == 3
assert open_ledger(LEDGER).jobs() == []

# %% [markdown]
# ## A run that is allowed
#
# With 20 seconds the request goes through. It is written to the *ledger*, a file, before it is sent. The same request
# again is answered from there: the numbers are equal, and nothing more is spent.

# %%
allowed = device.with_options(allow_qpu_seconds=20, run="tutorial")
first = allowed.expectations(circuit, angles, None, (observable,), seed=0)
spent = allowed.spending().run
again = allowed.expectations(circuit, angles, None, (observable,), seed=0)
print(
    f"spent {spent:.1f} QPU seconds (estimated {cost.qpu_seconds:.1f}); after asking again {allowed.spending().run:.1f}"
)
assert torch.equal(first.values, again.values)
assert allowed.spending().run == spent

# %% [markdown]
# ## Killed in the middle
#
# Here is another process that sends the same circuit with other angles. At the worst moment, after the request has left
# and before the answer has come, it is killed: no exception, no clean-up.

# %%
script = folder / "run.py"
script.write_text(f"""
import os, signal
import torch
from backends.ibm import IBM
from backends.ibm.transports import Rehearsal
from circuits import Circuit, Z

Rehearsal.submit = lambda self, job: os.kill(os.getpid(), signal.SIGKILL)
device = IBM("fake_manila", shots=1000, ledger={LEDGER!r}, allow_qpu_seconds=20, run="tutorial")
angles = torch.tensor([[0.4], [1.4]], dtype=torch.float64)
circuit = Circuit.from_json({circuit.to_json()!r})
device.expectations(circuit, angles, None, (Z(0) @ Z(1) @ Z(2),), seed=0)
""")
killed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
print("the process ended with", killed.returncode)
assert killed.returncode == -9, killed.stderr
app(["jobs", "list", "--ledger", LEDGER], standalone_mode=False)

# %% [markdown]
# The job is `uncertain`: it may have been sent, so it is never sent again blindly. `qlm jobs resume` looks for its tag
# at the service, and fetches the result or asks what to do. The most that it may take stays booked until then.

# %%
(job,) = open_ledger(LEDGER).jobs(states=("uncertain",))
app(["jobs", "resume", "--ledger", LEDGER], standalone_mode=False)
history = [state for _, state, _ in open_ledger(LEDGER).history(job.tag)]
print("its states:", " -> ".join(history))
assert history == ["queued", "uncertain", "submitted", "done"]

# %% [markdown]
# Nothing was lost and nothing is paid twice: whoever repeats the call of the dead process gets the stored answer.

# %%
count = len(open_ledger(LEDGER).jobs())
rescued = allowed.expectations(circuit, torch.tensor([[0.4], [1.4]], dtype=torch.float64), None, (observable,), seed=0)
assert len(open_ledger(LEDGER).jobs()) == count == 2
print("its values:", [f"{v:.3f} +- {e:.3f}" for v, e in zip(rescued.values[:, 0], rescued.stderr[:, 0], strict=True)])

# %% [markdown]
# ## What an error bar says
#
# The same circuit is measured 300 times, 200 shots each. The estimates scatter around *their* mean as the error bars
# say: about 68 % of them lie within one. The noise of the device moves the mean itself away from the ideal value, and
# no number of shots brings it back.

# %%
many = IBM("fake_manila", shots=200).expectations(circuit, angles[:1].expand(300, 1), None, (observable,), seed=3)
values, stderr = many.values[:, 0], many.stderr[:, 0]
within = float(((values - values.mean()).abs() < stderr).double().mean())
shift = float((values.mean() - ideal.values[0, 0]).abs() / stderr.mean())
print(f"{100 * within:.0f} % within one error bar of their mean, which is {shift:.0f} error bars from the ideal value")
assert 0.55 < within < 0.8
assert shift > 2

figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
axes.hist(values.numpy(), bins=[0.405 + 0.02 * k for k in range(22)], color=PURPLE)
axes.axvline(float(ideal.values[0, 0]), color="0.3", linestyle="--", label="without noise")
axes.axvspan(
    *(float(values.mean() + s * stderr.mean()) for s in (-1, 1)), color=ORANGE, alpha=0.3, label="one error bar"
)
axes.set(xlabel="estimate from 200 shots", ylabel="how often", title="300 estimates of one number on a noisy device")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Mitigation, off and on
#
# *Readout mitigation* (`resilience_level=1`) measures how the device misreads bits and inverts it. *Zero-noise
# extrapolation* (`zne`) runs each circuit with its noise amplified 1, 3 and 5 times, and extrapolates to none. Both are
# options of the same string; the estimate shows what they cost before anybody pays.

# %%
runs = {}
for name, options in (
    ("off", ""),
    ("readout", "&resilience_level=1"),
    ("readout, zne", "&resilience_level=1&zne=1,3,5"),
):
    backend = open_backend("ibm:fake_manila?shots=2000" + options)
    answer = backend.expectations(circuit, angles, None, (observable,), seed=0)
    price = backend.estimate(circuit, angles, None, (observable,)).qpu_seconds
    error = float((answer.values - ideal.values).abs().mean())
    runs[name] = (answer, error, price)
    print(f"mitigation {name:13} off by {error:.3f}, error bars {answer.stderr.mean():.3f}, {price:5.1f} QPU seconds")
assert runs["readout"][1] < runs["off"][1] / 2
assert runs["readout, zne"][2] > 2 * runs["readout"][2]

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 3.6), layout="constrained", gridspec_kw={"width_ratios": (2, 1)}
)
left.plot(angles[:, 0], ideal.values[:, 0], color="0.6", linewidth=4, label="without noise")
styles = zip(runs.items(), (ORANGE, PURPLE, TEAL), ("v", "o", "s"), strict=True)
for place, ((name, (answer, error, price)), colour, marker) in enumerate(styles):
    y, bars = answer.values[:, 0].numpy(), answer.stderr[:, 0].numpy()
    left.errorbar(angles[:, 0].numpy(), y, bars, color=colour, fmt=marker, capsize=3, label=f"mitigation {name}")
    right.bar(place, error, color=colour)
    right.text(place, error, f"{price:.0f} QPU s", ha="center", va="bottom")
left.set(xlabel="input angle (radians)", ylabel="<ZZZ>", title="One sweep")
left.legend(frameon=False)
right.set(xticks=range(3), xticklabels=runs, ylabel="mean absolute error", title="What it buys, what it costs")
right.set_ylim(0, 1.2 * runs["off"][1])
plt.show()

# %% [markdown]
# ## Training within a budget
#
# A layer trains on a device as it does on a simulator; its gradient comes from the parameter-shift rule, two circuits
# more per sample and angle. The running total grows with each step, and the step that would exceed the allowance is
# refused before it is sent. `qlm train --backend ibm:... --allow-qpu-seconds 60` does the same with a checkpoint at the
# stop, and `--resume` continues from it.

# %%
small = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("ry", (1,), (Weight(0),))))
metered = IBM("fake_manila", shots=300, ledger=LEDGER, allow_qpu_seconds=20, run="training")
model = QuantumLayer(small, (Z(1),), metered)
optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
inputs = torch.linspace(0.2, 1.0, 4)[:, None]
totals, losses, refusal = [], [], None
while refusal is None:
    try:
        loss = (model(inputs) + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    except BudgetError as error:
        refusal = error
    else:
        losses.append(loss.item())
        totals.append(metered.spending().run)
        print(f"loss {losses[-1]:.3f}, {totals[-1]:.1f} of {metered.allow_qpu_seconds} QPU seconds")
print("stopped:", refusal)
assert totals == sorted(totals)
assert 0 < totals[-1] <= metered.spending().run <= metered.allow_qpu_seconds
assert losses[-1] < losses[0]

# %% [markdown]
# ## With an account
#
# The path to a real machine is the same, with credentials from the environment or the runtime's saved account:
#
# ```console
# qlm backends account ibm_torino
# qlm jobs budget --month 600
# qlm train --backend "ibm:ibm_torino?shots=1000" --allow-qpu-seconds 60 --out runs/torino
# qlm jobs list
# ```
#
# Seeds mean nothing there, queues are long, and the noise drifts from day to day. The estimate, the budgets, the ledger
# and the error bars are the ones you have just seen.
