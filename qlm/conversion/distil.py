"""Teaching blocks what attention did: first each layer by itself, then the whole model by its teacher's logits.

Axis legend: b windows, l tokens of a window, d model width, v vocabulary.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qlm.conversion.modeling import ConvertedForCausalLM
from qlm.conversion.text import TokenText

Told = Callable[[str, int, float], None]
"""Hears of a step: what is done, its number from 1, and the loss."""
_FINAL_SHARE = 0.05
"""Of the largest learning rate, at the last step."""


def unheard(what: str, step: int, loss: float) -> None:
    """Tell nobody.

    >>> unheard("align", 1, 0.5)
    """


@dataclass(frozen=True)
class ConversionRecipe:
    """How to convert: steps of ``batch_size`` windows of ``context`` tokens, AdamW, linear warm-up over a tenth of the
    steps, cosine down to a twentieth of the rate, gradients clipped at norm 1.

    ``temperature`` softens both models' distributions in the distillation; ``soft_share`` is the weight of that term,
    the rest that of the cross-entropy with the text. Raises ValueError for other numbers than make sense.

    >>> ConversionRecipe(align_steps=0).distil_steps
    400
    """

    align_steps: int = 200
    distil_steps: int = 400
    batch_size: int = 8
    context: int = 128
    align_rate: float = 3e-3
    distil_rate: float = 1e-3
    temperature: float = 2.0
    soft_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("align_steps", 0), ("distil_steps", 0), ("batch_size", 1), ("context", 2)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"a conversion expects {name} of at least {least}, got {getattr(self, name)}; raise it."
                )
        for name in ("align_rate", "distil_rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"a conversion expects a positive {name}, got {getattr(self, name)}; correct it.")
        if not 0 <= self.soft_share <= 1 or not 0 <= self.seed < 2**32:
            raise ValueError(
                f"a conversion expects a soft_share in [0, 1] and a seed from 0 to 2**32 - 1, got {self.soft_share} "
                f"and {self.seed}; correct them."
            )


def align(
    student: ConvertedForCausalLM,
    teacher: PreTrainedModel,
    text: TokenText,
    recipe: ConversionRecipe,
    told: Told = unheard,
) -> None:
    """Train each block to give attention's output from attention's input, both the teacher's: layers do not interact.

    The loss of a layer is ``|block(x) - y|^2 / |y|^2``, 1 for a block that adds nothing; blocks alone are trained.
    Raises ValueError where it is no longer finite. Cost: a step is a forward of the teacher's body and a forward and
    backward of the blocks.
    """
    mixers = student.mixers()
    trained = [p for mixer in mixers.values() for p in mixer.parameters() if p.requires_grad]

    def loss(ids: Tensor) -> Tensor:
        errors = alignment_errors(student, teacher, ids)
        return torch.stack(tuple(errors.values())).mean()

    _train(student, trained, loss, text, recipe, ("align", recipe.align_steps, recipe.align_rate), told)


def alignment_errors(student: ConvertedForCausalLM, teacher: PreTrainedModel, ids: Tensor) -> dict[int, Tensor]:
    """Return ``|block(x) - y|^2 / |y|^2`` by layer, over windows (b, l): 1 for a block that adds nothing."""
    with torch.no_grad(), _observed(teacher, list(student.mixers())) as seen:
        teacher.base_model(ids, use_cache=False)
    errors = {}
    for index, mixer in student.mixers().items():
        x, y = seen[index]
        errors[index] = (mixer(x)[0] - y).float().square().sum() / y.float().square().sum()
    return errors


def distil(
    student: ConvertedForCausalLM,
    teacher: PreTrainedModel,
    text: TokenText,
    recipe: ConversionRecipe,
    told: Told = unheard,
) -> None:
    """Train the whole student on its teacher's logits and on the text, by ``distillation_loss``.

    Raises ValueError where the loss is no longer finite. Cost: a step is one of the student and a forward of the
    teacher.
    """

    def loss(ids: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(ids, use_cache=False).logits
        return distillation_loss(student(ids, use_cache=False).logits, target, ids, recipe)

    trained = [p for p in student.parameters() if p.requires_grad]
    _train(student, trained, loss, text, recipe, ("distil", recipe.distil_steps, recipe.distil_rate), told)


def distillation_loss(logits: Tensor, target: Tensor, ids: Tensor, recipe: ConversionRecipe) -> Tensor:
    """Return ``c T^2 KL(p_T || q_T) + (1 - c) CE`` of logits (b, l, v), means over tokens in nats.

    p_T and q_T are the distributions of the teacher's logits and of these at temperature T, c the ``soft_share``, CE
    the cross-entropy with the next token.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2.

    >>> same = torch.zeros(1, 2, 4)
    >>> distillation_loss(same, same, torch.tensor([[0, 3]]), ConversionRecipe(soft_share=1.0))
    tensor(0.)
    """
    p, q = ((one.flatten(0, 1) / recipe.temperature).log_softmax(-1) for one in (target, logits))
    soft = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    return recipe.soft_share * recipe.temperature**2 * soft + (1 - recipe.soft_share) * cross_entropy(logits, ids)


def learn(
    model: PreTrainedModel,
    text: TokenText,
    recipe: ConversionRecipe,
    steps: int,
    rate: float,
    told: Told = unheard,
) -> None:
    """Train a causal language model on the text alone, with the recipe's batches: what a distilled one is held
    against."""
    trained = [p for p in model.parameters() if p.requires_grad]
    called: Any = model
    _train(
        model,
        trained,
        lambda ids: cross_entropy(called(ids, use_cache=False).logits, ids),
        text,
        recipe,
        ("learn", steps, rate),
        told,
    )


def cross_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the mean loss in nats of logits (b, l, v) for the next of the tokens (b, l).

    >>> cross_entropy(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]))
    tensor(1.3863)
    """
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


@contextmanager
def _observed(teacher: PreTrainedModel, layers: list[int]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """What goes into attention and what comes out of it, by layer, in the teacher's calls."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def watch(index: int) -> Callable[[nn.Module, Any, dict[str, Any], Any], None]:
        def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
            seen[index] = (kwargs["hidden_states"], output[0])

        return hook

    body: Any = teacher.base_model
    handles = [body.layers[i].self_attn.register_forward_hook(watch(i), with_kwargs=True) for i in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _train(
    model: PreTrainedModel,
    trained: list[nn.Parameter],
    loss: Callable[[Tensor], Tensor],
    text: TokenText,
    recipe: ConversionRecipe,
    schedule: tuple[str, int, float],
    told: Told,
) -> None:
    """Steps of AdamW on windows drawn from the text; the model's mode comes back."""
    what, steps, rate = schedule
    if not steps:
        return
    training = model.training
    model.train()
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    shape = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_share(step, steps))
    draws = torch.Generator().manual_seed(zlib.crc32(f"{what} {recipe.seed}".encode()))  # other windows in each stage
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        found = loss(text.windows(recipe.batch_size, recipe.context, draws).to(model.device))
        if not bool(found.isfinite()):
            raise ValueError(
                f"training expects a finite loss, got {float(found)} at step {step} of '{what}'; lower its rate."
            )
        found.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        shape.step()
        told(what, step, float(found.detach()))
    optimizer.zero_grad()
    model.train(training)


def _rate_share(step: int, steps: int) -> float:
    """Share of the largest rate at a step from 0: linear over a tenth of them, then a cosine."""
    warmup = steps // 10
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
