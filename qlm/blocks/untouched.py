"""Whether a module may be taken apart, or has to be called."""

from typing import Any

from torch import nn
from torch.nn.modules import module as hooks


def parameters_of(module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """Return the parameters by name of a module that does what ``kind`` says and no more, and none of any other.

    Another class (a subclass, an adapter, a quantised or parametrised layer), hooks, and a ``forward`` put in place of
    the class's own make it another one: it has to be called.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> list(parameters_of(layer, nn.Linear)), parameters_of(layer, nn.RMSNorm)
    (['weight', 'bias'], {})
    """
    hooked = module._forward_hooks or module._forward_pre_hooks
    if hooked or hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return {}
    return module._parameters if type(module) is kind and "forward" not in vars(module) else {}
