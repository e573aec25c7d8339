"""Makes transformers' Auto classes know our models, without importing transformers before the user does."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def _register_config(module: ModuleType) -> None:
    from qlm.config import QLMConfig
    from qlm.conversion.config import ConvertedConfig

    for config in (QLMConfig, ConvertedConfig):
        module.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizer(module: ModuleType) -> None:
    from qlm.config import QLMConfig
    from qlm.tokenizer import ByteTokenizer

    module.AutoTokenizer.register(QLMConfig, tokenizer_class=ByteTokenizer, exist_ok=True)


def _register_models(module: ModuleType) -> None:
    from qlm.config import QLMConfig
    from qlm.conversion.config import ConvertedConfig
    from qlm.conversion.modeling import ConvertedForCausalLM
    from qlm.modeling import QLMForCausalLM, QLMModel

    module.AutoModel.register(QLMConfig, QLMModel, exist_ok=True)
    module.AutoModelForCausalLM.register(QLMConfig, QLMForCausalLM, exist_ok=True)
    module.AutoModelForCausalLM.register(ConvertedConfig, ConvertedForCausalLM, exist_ok=True)


_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.modeling_auto": _register_models,
}


class _After(Loader):
    """A module's own loader, then our registration."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _REGISTRATIONS[module.__name__](module)


class _Finder(MetaPathFinder):
    """Wraps the loaders of transformers' three Auto modules; leaves every other import alone."""

    def __init__(self) -> None:
        self.searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTRATIONS or self.searching:
            return None
        self.searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _After(spec.loader)
        return spec


def register_when_imported() -> None:
    """Register QLM classes with AutoConfig, AutoTokenizer, AutoModel and AutoModelForCausalLM.

    Where transformers' Auto modules are imported already: at once; else right after their import. Costs nothing for
    who never imports transformers. Calling it twice changes nothing.

    >>> register_when_imported()
    """
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
