"""How `make docs` renders the pages: Markdown, and the tutorials executed as notebooks with their pictures."""

import re
from importlib.metadata import version as installed
from typing import Any

project = "hybridqlm"
author = "The hybridqlm developers"
project_copyright = "The hybridqlm developers, Apache-2.0"
version = release = installed("hybridqlm")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py", "_build"]
source_suffix = {".md": "myst-nb", ".py": "myst-nb"}

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_cache_path = "_build/executed"
nb_execution_mode = "cache"  # a tutorial whose code is unchanged is not run again
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "hybridqlm"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["code.css"]

_LITERAL = re.compile(r"(``.*?``)")


def _escape(_app: Any, _what: str, _name: str, _object: object, _options: Any, lines: list[str]) -> None:
    """Keep bars and stars of formulas from being read as markup; literals and examples stay."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = _LITERAL.split(line)
        lines[number] = "".join(part if part.startswith("``") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escape)
