"""The rules of the house that a machine can check: sizes, imports, packages, and nothing private in the tree."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from setuptools import find_packages

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = {"backends.statevector.pennylane_plugin": "pennylane", "backends.statevector.qiskit_primitives": "qiskit"}
"""Modules that subclass another package's classes, which that package imports: nothing of ours does."""
KERNELS = ".triton_kernels"
"""Modules in another language, imported by whoever launches them on a card."""
PACKAGES = ("circuits", "tensornet", "classical_kernels", "backends", "qlm")
EXTRAS = ("qiskit", "qiskit_aer", "qiskit_ibm_runtime", "pennylane", "quimb", "cotengra", "triton", "datasets", "peft")
MAX_LINES = 300


def _project_files() -> list[Path]:
    """Every file that is, or by the next commit may be, part of the project."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0 and listing.stdout:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked source archive
        folders = (*PACKAGES, "tests", "tutorials", "benchmarks")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
        paths += list(ROOT.glob("*"))
    return sorted(path for path in paths if path.is_file())


def _python_files() -> list[Path]:
    return [path for path in _project_files() if path.suffix == ".py"]


def _module_names() -> list[str]:
    """Dotted names of all modules of the five packages; `__main__` runs instead of being imported."""
    names = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__":
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def _run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)


# An audit hook sees connections however they are made; a finder in front sees every import, lazy or not.
_NO_NETWORK = """
import sys
def _refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"an import touched the network: {event} {args}")
sys.addaudithook(_refuse)
"""
_NO_EXTRAS = f"""
import importlib, sys
from importlib.machinery import PathFinder
class WithoutExtras(PathFinder):  # finds nothing, as if they were not installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {EXTRAS!r} else super().find_spec(name, path, target)
sys.meta_path = [WithoutExtras if finder is PathFinder else finder for finder in sys.meta_path]
"""


def _is_literal(node: ast.expr | None) -> bool:
    """Whether an expression is data: constants, and tuples, lists and dicts of them."""
    if node is None:
        return False
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _is_logic(node: ast.stmt) -> bool:
    """Whether a top-level statement of an `__init__.py` is more than names: imports, literals, a lazy table."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return False
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    if isinstance(node, ast.FunctionDef):
        return node.name not in ("__getattr__", "__dir__")
    if isinstance(node, ast.If):  # names for type checkers, beside the lazy table that serves them at run time
        typing_only = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") and not node.orelse
        return not typing_only or any(_is_logic(child) for child in node.body)
    return not (isinstance(node, ast.Assign | ast.AnnAssign) and _is_literal(node.value))


def _qlm_may_hold(node: ast.stmt) -> bool:
    """Whether a statement is the check that `circuits` and `backends` are ours, or registers the Auto classes."""
    if isinstance(node, ast.Expr):
        return ast.unparse(node) == "register_when_imported()"
    raises = any(isinstance(child, ast.Raise) for child in ast.walk(node))
    return isinstance(node, ast.For | ast.If) and raises and "IS_HYBRIDQLM" in ast.unparse(node)


def test_files_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in _python_files()}
    assert lengths
    too_long = {str(path): n_lines for path, n_lines in lengths.items() if n_lines > MAX_LINES}
    assert not too_long, f"at most {MAX_LINES} lines: split by subject"


def test_every_module_imports_without_extras_and_without_network() -> None:
    names = [name for name in _module_names() if name not in PLUGINS and not name.endswith(KERNELS)]
    assert len(names) >= len(PACKAGES)
    done = _run_python(f"{_NO_NETWORK}{_NO_EXTRAS}\nfor name in {names!r}:\n    importlib.import_module(name)\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"an import printed {done.stdout!r}"


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_without_its_host_names_the_extra(name: str) -> None:
    done = _run_python(f"{_NO_EXTRAS}\nimport {name}\n")
    assert done.returncode == 1
    assert f"pip install 'hybridqlm[{PLUGINS[name]}]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"{_NO_EXTRAS}\nimport qiskit.circuit\n", "No module named 'qiskit'"),
        (f"{_NO_NETWORK}\nimport socket\nsocket.create_connection(('127.0.0.1', 9))\n", "touched the network"),
    ],
)
def test_barriers_are_real(code: str, message: str) -> None:
    """What the test above forbids does fail: otherwise it would prove nothing."""
    done = _run_python(code)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_uninitialised_memory_is_poisoned(dtype: torch.dtype) -> None:
    like = torch.zeros(3, dtype=dtype)
    for fresh in (torch.empty(3, dtype=dtype), torch.empty_like(like), like.new_empty(3)):
        assert fresh.dtype == dtype
        assert torch.isnan(fresh).all()
    assert torch.empty(2, dtype=dtype, requires_grad=True).is_leaf
    assert torch.isnan(torch.empty((2, 3, 70, 100), dtype=dtype, memory_format=torch.channels_last)).all()
    assert torch.empty(0, dtype=dtype).shape == (0,)
    assert torch.empty(3, dtype=torch.int64).shape == (3,)


@pytest.mark.parametrize(
    ("module", "too_heavy"),
    [
        ("circuits", ("torch", "numba", "scipy", "matplotlib", "qiskit")),
        ("circuits.library", ("torch", "numba", "scipy", "matplotlib", "qiskit")),
        ("backends", ("transformers", "qiskit", "qiskit_aer", "qiskit_ibm_runtime", "pennylane", "quimb")),
        ("qlm", ("torch", "transformers", "numba", "matplotlib", "qiskit")),
        ("qlm.cli", ("torch", "transformers", "numba", "matplotlib", "qiskit")),
    ],
)
def test_import_is_light_and_silent(module: str, too_heavy: tuple[str, ...]) -> None:
    code = f"import {module}\nfound = [name for name in {too_heavy!r} if name in sys.modules]\nassert not found, found"
    done = _run_python(_NO_NETWORK + code)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_no_init_has_logic() -> None:
    logic = []
    for path in _python_files():
        if path.name != "__init__.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if _is_logic(node) and not (path == ROOT / "qlm" / "__init__.py" and _qlm_may_hold(node)):
                logic.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not logic, "\n".join(logic)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'Words.'\nimport os\nfrom a import b\n__all__ = ['b']\n_WHERE = {'c': 'd'}", False),
        ("def __getattr__(name): ...", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import b", False),
        ("OURS = True\n_SIZES: tuple[int, ...] = (1, 2)", False),
        ("def helper(): ...", True),
        ("class A: ...", True),
        ("_value = compute()", True),
        ("if x:\n    import y", True),
        ("compute()", True),
    ],
)
def test_logic_is_recognised(source: str, expected: bool) -> None:
    assert any(_is_logic(node) for node in ast.parse(source).body) is expected


def test_import_contracts_hold() -> None:
    lint_imports = shutil.which("lint-imports", path=Path(sys.executable).parent)
    if lint_imports is None:
        pytest.skip("import-linter is not installed; the extra `dev` brings it")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# A letter of each word stands in brackets so that this file does not match itself.
_PRIVATE = re.compile(
    r"/wor[k]/|/tm[p]/w\b|/roo[t]/|/hom[e]/|share[d]/|\bissue\s+#?\d|co-authore[d]-by|\bsub-?agen[t]", re.IGNORECASE
)


def test_nothing_private_is_in_the_tree() -> None:
    found = []
    for path in _project_files():
        if path.suffix in (".png", ".safetensors"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if match := _PRIVATE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()!r}")
    assert not found, "\n".join(found)


def test_wheel_would_hold_every_module() -> None:
    """Every folder with modules is a package that setuptools finds, is typed, and none is left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    found = set(find_packages(str(ROOT), include=include))
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert found == {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_pinned_versions_satisfy_what_the_package_asks_for() -> None:
    """`constraints.txt` pins every core dependency and torch to the version whose build needs no accelerator."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = project["optional-dependencies"]
    for requirement in (*project["dependencies"], *extras["dev"], *extras["qiskit"]):
        name, _, lowest = requirement.partition(">=")
        assert [int(part) for part in pinned[name].split(".")] >= [int(part) for part in lowest.split(".")], name
    assert pinned["torch"] == "2.13.0"


def test_rooms_of_circuits_open_by_attribute() -> None:
    """What tutorials write after ``import circuits`` alone."""
    code = "import circuits; print(circuits.interop.openqasm.dumps(circuits.library.angle_encoding(1)).split()[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OPENQASM"
