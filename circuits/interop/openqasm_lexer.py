"""OpenQASM text as tokens, one at a time, with their lines; and the limits that every reader of it keeps."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_CHARACTERS = 10_000_000
MAX_WIRES = 4096
MAX_OPS = 1_000_000
MAX_NESTING = 64
"""Of brackets and operators in an expression, of gate definitions that use one another, and of modifiers."""

_TOKENS = re.compile(
    r"""
    (?P<space>[ \t\r\f]+ | //[^\n]*)
    | (?P<newline>\n)
    | (?P<comment>/\*.*?\*/)
    | (?P<hex>0[xX][0-9a-fA-F_]+ | 0[bB][01_]+ | 0[oO][0-7_]+)
    | (?P<float>(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)? | [0-9][0-9_]*[eE][+-]?[0-9]+)
    | (?P<int>[0-9][0-9_]*)
    | (?P<name>[^\W\d]\w*)
    | (?P<string>"[^"\n]*"|'[^'\n]*')
    | (?P<hardware>\$[0-9]+)
    | (?P<symbol>->|\*\*|\+\+|==|!=|<=|>=|&&|\|\||<<|>>|[][{}();,=+\-*/^%@<>!&|~:.\#])
    """,
    re.VERBOSE | re.DOTALL,
)


class OpenQASMError(ValueError):
    """A text that is not OpenQASM of the gate-level subset, or one beyond the limits: the line and what to do."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


class Token(NamedTuple):
    """A piece of text, its kind (float, int, name, string, hardware, symbol or end) and its line."""

    kind: str
    text: str
    line: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a text, then one of kind "end"; raises OpenQASMError for a character that starts none.

    >>> [token.text for token in tokens("rx(0.5) q; // half")]
    ['rx', '(', '0.5', ')', 'q', ';', '']
    """
    place, line = 0, 1
    while place < len(text):
        match = _TOKENS.match(text, place)
        if match is None or (match.lastgroup == "symbol" and text.startswith("/*", place)):
            what = "an end to this comment" if text.startswith("/*", place) else "a token of OpenQASM"
            raise OpenQASMError(line, f"expects {what}, got {text[place : place + 12]!r}; correct it.")
        kind, piece, place = str(match.lastgroup), match.group(), match.end()
        if kind in ("hex", "int", "float") and re.match(r"\w", text[place : place + 1]):
            raise OpenQASMError(line, f"expects a plain number, got '{piece}{text[place]}...'; units are not read.")
        if kind == "hex":
            yield Token("int", str(int(piece.replace("_", ""), 0)) if len(piece) < 20 else "9" * 20, line)
        elif kind not in ("space", "newline", "comment"):
            yield Token(kind, piece, line)
        line += piece.count("\n")
    yield Token("end", "", line)


class Cursor:
    """The token at hand, and the next ones as they are taken."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self.token = next(self._tokens)
        self.nesting = 0

    @property
    def line(self) -> int:
        """Line of the token at hand."""
        return self.token.line

    def take(self) -> Token:
        """Return the token at hand and move on."""
        taken = self.token
        self.token = next(self._tokens, taken)
        return taken

    def accept(self, text: str) -> bool:
        """Move on if the token at hand is this symbol or word."""
        if self.token.text != text or self.token.kind == "string":
            return False
        self.take()
        return True

    def expect(self, text: str) -> None:
        """Move on past this symbol or word, or raise OpenQASMError."""
        if not self.accept(text):
            raise self.unexpected(f"'{text}'")

    def expect_kind(self, kind: str, what: str) -> str:
        """Return the text of a token of this kind and move on, or raise OpenQASMError."""
        if self.token.kind != kind:
            raise self.unexpected(what)
        return self.take().text

    def unexpected(self, what: str) -> OpenQASMError:
        """The error that says what was expected in place of the token at hand."""
        shown = f"'{self.token.text[:40]}'" if self.token.kind != "end" else "the end of the text"
        return OpenQASMError(self.line, f"expects {what}, got {shown}; correct the text.")
