"""transformers' Auto classes know our models after ``import qlm``, whichever of the two is imported first."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qlm import ByteTokenizer, QLMConfig, QLMForCausalLM
from qlm.auto_classes import register_when_imported

ROOT = Path(__file__).resolve().parent.parent


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    small = [{"kind": "harmonic"}, {"kind": "quantum_router", "n_wires": 2, "depth": 1}]
    QLMForCausalLM(QLMConfig(d_model=8, blocks=small)).save_pretrained(folder)
    ByteTokenizer().save_pretrained(folder)
    return folder


USE = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
import torch
config = AutoConfig.from_pretrained({folder!r})
assert type(config).__name__ == "QLMConfig" and config.d_model == 8, config
model = AutoModelForCausalLM.from_pretrained({folder!r})
assert type(model).__name__ == "QLMForCausalLM"
assert type(AutoModelForCausalLM.from_config(config)).__name__ == "QLMForCausalLM"
base = AutoModel.from_pretrained({folder!r})
assert type(base).__name__ == "QLMModel"
assert torch.equal(base.layers[1].core.layer.weights, model.model.layers[1].core.layer.weights)
tokenizer = AutoTokenizer.from_pretrained({folder!r})
assert type(tokenizer).__name__ == "ByteTokenizer" and tokenizer("hi").input_ids == [104, 105], tokenizer
"""


@pytest.mark.parametrize(
    "first", ["import qlm", "from transformers import AutoModelForCausalLM, AutoTokenizer; import qlm"]
)
def test_auto_classes_know_our_models(first: str, saved: Path) -> None:
    run(first + USE.format(folder=str(saved)))


def test_auto_classes_know_models_in_use(saved: Path) -> None:
    exec(USE.format(folder=str(saved)), {})  # noqa: S102 -- in this process, which imported both at the top


def test_import_brings_neither_torch_nor_transformers_and_leaves_other_imports_alone() -> None:
    run(
        "import sys, qlm, importlib.util\n"
        "heavy = {'torch', 'transformers', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert importlib.util.find_spec('no_such_module') is None\n"
        "assert importlib.util.find_spec('json').loader.__class__.__name__ == 'SourceFileLoader'\n"
    )


def test_registering_twice_changes_nothing() -> None:
    finders = list(sys.meta_path)
    register_when_imported()
    register_when_imported()
    assert sys.meta_path == finders


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circuits.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import qlm\nexcept ImportError as error:\n    print(error, file=sys.stderr)\n    sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "unrelated" in done.stderr
    assert "circuits" in done.stderr
