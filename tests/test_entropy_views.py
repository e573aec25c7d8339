"""Entropy views: what they show, on which colours, and that a page needs nothing from elsewhere."""

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from qlm.entropy_html import page
from qlm.entropy_png import _lines
from qlm.entropy_table import CONTROLS, Cut, EntropyRow, EntropyTable, Measurement
from qlm.entropy_views import contrast, scale, sheets, terminal_view, write_entropy_views

TEXT = b"<script>alert(1)</script> & 'a' \"b\"\n\n\tna\xc3\xafve \xf0\x9f\x99\x82\xff\x1b\xe2\x80\xaeend"
BLOCKS = ("1.quantum_router", "3.quantum_router")
VOID = {"meta", "br", "wbr"}


def build(data: bytes = TEXT, blocks: tuple[str, ...] = BLOCKS[:1], **about: object) -> EntropyTable:
    """A table whose trained entropies rise along the text, above both controls."""
    text = data.decode("utf-8", "surrogateescape")
    cuts = tuple(Cut(block, 4, (0, 1)) for block in blocks)
    made = Measurement("statevector", "von_neumann", 0, None, False, 10 * len(data), 8, text, cuts)
    base = {"trained": 0.8, "untrained": 0.3, "shuffled": 0.1}
    rows = [
        EntropyRow(
            k, "x", k, k + 1, block, (0, 1), control, base[control] + 0.5 * k / len(data), 0.0, None, None, 1 + k
        )
        for block in blocks
        for control in CONTROLS
        for k in range(len(data))
    ]
    return EntropyTable.from_rows(replace(made, **about), rows)  # pyright: ignore[reportArgumentType] -- fields by name


class Reader(HTMLParser):
    """Collects tags, the text of each panel and of the list, and checks that tags are closed in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        path = ">".join(self.open)
        self.texts[path] = self.texts.get(path, "") + data


def test_characters_carry_the_mean_of_their_bytes() -> None:
    (sheet,) = sheets(build("aé🙂".encode()))
    glyphs = sheet.panels[0].glyphs
    assert [(glyph.shown, glyph.n_bytes) for glyph in glyphs] == [("a", 1), ("é", 2), ("🙂", 4)]
    assert [glyph.entropy for glyph in glyphs] == pytest.approx([0.8, 0.8 + 0.75 / 7, 0.8 + 2.25 / 7])
    assert [glyph.surprisal for glyph in glyphs] == pytest.approx([1, 2 + 3, 4 + 5 + 6 + 7])


def test_what_cannot_be_seen_is_written_out() -> None:
    glyphs = sheets(build())[0].panels[0].glyphs
    shown = "".join(glyph.shown for glyph in glyphs)
    assert shown == "<script>alert(1)</script>·&·'a'·\"b\"↵↵⇥naïve·🙂\\xff\\x1b\\u202eend"
    assert {glyph.shown for glyph in glyphs if glyph.faint} == {"·", "↵", "⇥"}
    assert sum(glyph.n_bytes for glyph in glyphs) == len(TEXT)


def test_ink_is_readable_on_every_background() -> None:
    colours = scale(1.0)
    assert min(contrast(*colours(k / 500)) for k in range(501)) >= 4.5
    assert colours(-1.0) == colours(0.0)
    assert colours(7.0) == colours(1.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # a figure known to designers


def test_one_scale_from_zero_to_the_maximum() -> None:
    (sheet,) = sheets(build())
    assert sheet.top == sheet.max_entropy == 2 * math.log(2)
    assert sheet.reference == (pytest.approx(0.9223957, abs=1e-6), "random states (Page)")
    table = build(noisy=True)
    above = replace(table, entropy=(1.5, *table.entropy[1:]))
    assert sheets(above)[0].top == 1.5


def test_caption_says_what_the_intervals_say() -> None:
    caption = " ".join(sheets(build())[0].caption)
    assert "lies above that of the same circuit untrained" in caption
    assert "(AUC) 1.000 [1.000, 1.000]" in caption
    assert "rises with the token's surprisal: rank correlation 1.000" in caption
    table = build()
    n = len(TEXT)
    mixed = (*table.entropy[:n], *table.entropy[:n][::-1], *table.entropy[:n])
    caption = " ".join(sheets(replace(table, entropy=mixed))[0].caption)
    assert "For the same circuit untrained that rank correlation is −1.000 [−1.000, −1.000]" in caption
    assert "the trained one is larger: difference 2.000 [2.000, 2.000]" in caption
    assert "For the shuffled text that rank correlation is 1.000" in caption
    assert "the trained one cannot be told apart: difference 0.000" in caption
    same = replace(table, entropy=table.entropy[:n] * 3)
    caption = " ".join(sheets(same)[0].caption)
    assert "cannot be told from that of the same circuit untrained" in caption
    assert "(AUC) 0.500" in caption
    falling = replace(table, entropy=(*table.entropy[:n][::-1], *table.entropy[n:]))
    assert "falls with the token's surprisal: rank correlation −1.000" in " ".join(sheets(falling)[0].caption)
    constant = replace(table, entropy=(0.0,) * len(table))
    assert "no correlation" in " ".join(sheets(constant)[0].caption)


def test_noise_is_named() -> None:
    assert sheets(build())[0].heading == "Per-token entanglement entropy"
    table = build(noisy=True, kind="renyi2", shots=100, n_shuffles=1)
    n = len(table)
    noisy = replace(table, stderr=(0.01,) * n, purity=(0.4,) * n, purity_stderr=(0.01,) * n)
    (sheet,) = sheets(noisy)
    assert sheet.heading == "Per-token subsystem entropy (includes noise)"
    assert "100 shots per circuit" in sheet.subtitle
    assert sheet.panels[2].title == "Tokens shuffled (one order)"
    caption = " ".join(sheet.caption)
    trained = noisy.select(control="trained").certified()
    share = sum(flag is True for flag in trained) / len(trained)
    assert 0 < share < 1
    assert f"holds beyond the error for {share:.0%} of the trained tokens" in caption
    assert "standard error of 0.010 nats" in caption
    assert "purity Tr rho^2 is 0.400" in caption
    assert "entanglement entropy" not in sheet.heading + sheet.subtitle + caption
    untested = " ".join(sheets(build(noisy=True))[0].caption)
    assert "was not tested" in untested
    reset = build(cuts=(Cut(BLOCKS[0], 4, (0, 1), unitary=False),))
    assert "the state is mixed" in sheets(reset)[0].heading


def test_page_is_self_contained_and_well_formed() -> None:
    document = page(sheets(build(blocks=BLOCKS)))
    assert not re.search(r"https?:|//|@import|url\(", document)
    reader = Reader(document)
    assert not {name for _, attributes in reader.tags for name in attributes} & {"src", "href", "srcset", "onload"}
    assert reader.open == []
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("script") == 1  # ours; the text's own is escaped
    assert tags.count("section") == 2
    assert ("meta", {"charset": "utf-8"}) in reader.tags
    shown = [glyph.shown for glyph in sheets(build())[0].panels[0].glyphs]
    marked = [attributes for tag, attributes in reader.tags if tag == "i"]
    assert len(marked) == 2 * 3 * len(shown)
    assert [attributes["data-k"] for attributes in marked[: len(shown)]] == [str(k) for k in range(len(shown))]
    inside = reader.texts["html>body>section>div>div>p>i"]
    assert inside.startswith("<script>alert(1)</script>&'a'\"b\"naïve🙂\\xff")
    title = marked[shown.index("🙂")]["title"]
    assert title is not None
    assert re.fullmatch(r"🙂, 4 bytes \| 1\.\d{3} nats \| surprisal [\d.]+ nats", title)
    first = marked[0]["style"]
    background, ink = scale(2 * math.log(2))(0.8)
    assert first == f"background:{background};color:{ink}"


def test_terminal_shows_all_three_texts() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    console.print(terminal_view(build(b"one\ntwo")))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert plain.count("one↵") == 3
    assert plain.count("two") == 3
    for words in (
        "Trained: mean",
        "Same circuit, untrained: mean",
        "Tokens shuffled (mean of 8 orders): mean",
        "S_max 1.386",
    ):
        assert words in plain
    red, green, blue = (int(scale(2 * math.log(2))(0.8)[0][k : k + 2], 16) for k in (1, 3, 5))
    assert f"48;2;{red};{green};{blue}mo" in stream.getvalue()


@pytest.mark.parametrize("data", [TEXT, b"a", b"long words " * 60, b"x" * 200 + b"\n" * 5])
def test_files_are_written(data: bytes, tmp_path: Path) -> None:
    from matplotlib.image import imread

    picture, document = write_entropy_views(build(data), tmp_path / "new" / "folder")
    assert Reader(document.read_text(encoding="utf-8")).open == []
    assert (picture.name, document.name) == ("entropy.png", "entropy.html")
    pixels = imread(picture)[..., :3]
    assert pixels.shape[1] == 2100
    background = scale(2 * math.log(2))(0.8)[0]
    wanted = [int(background[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    assert (abs(pixels[:, :300] - wanted).max(-1) < 0.01).sum() > 50  # the first token's cell
    assert (pixels[:, -40:] > 0.99).all()  # nothing runs over the margin
    assert (pixels[-20:] > 0.99).all()


def test_lines_break_after_white_space_and_lose_nothing() -> None:
    glyphs = sheets(build(b"some words " * 30 + b"y" * 150 + b"\n\nend"))[0].panels[0].glyphs
    lines = _lines(glyphs)
    assert [glyph for line in lines for glyph in line] == list(glyphs)
    assert max(sum(len(glyph.shown) for glyph in line) for line in lines) <= 54
    assert all(line[-1].faint for line in lines[:5])
    assert ["".join(glyph.shown for glyph in line) for line in lines[-2:]] == ["↵", "end"]


def test_a_part_of_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="do not select first"):
        sheets(build().select(control="trained"))
