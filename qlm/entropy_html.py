"""The entropy view as one HTML page: no links, nothing from elsewhere, readable without its script."""

from collections.abc import Callable, Sequence
from html import escape

from qlm.entropy_views import Glyph, Panel, Sheet, scale

_STYLE = """
:root { color-scheme: light; }
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 84rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1rem; margin: 0; }
.subtitle, .note { color: #555; font-size: .9rem; margin: 0; }
.bar { position: relative; height: 1rem; margin: 2.6rem 2px 2.6rem 0; }
.bar span { position: absolute; top: 0; width: 0; height: 1.3rem; border-left: 2px solid #1a1a1a; }
.bar span.above { top: -.3rem; }
.bar b { position: absolute; top: 1.35rem; transform: translateX(-50%); font-size: .8rem; font-weight: normal;
         line-height: 1.2; white-space: nowrap; }
.bar span.above b { top: auto; bottom: 1.4rem; }
.bar span.first b { left: -2px; transform: none; } .bar span.last b { right: 0; transform: none; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.5rem; }
.text { margin: .6rem 0 0; font: .875rem/1.65 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
        overflow-wrap: anywhere; }
.text i { font-style: normal; padding: .16em 0; cursor: default; }
.text u { text-decoration: none; opacity: .55; }
.text i.on { outline: 2px solid #d1006c; outline-offset: -1px; position: relative; }
.read { position: sticky; bottom: 0; min-height: 1.5em; margin: 1.2rem 0 0; padding: .5rem 0; background: #fff;
        border-top: 1px solid #ddd; font-size: .9rem; }
.caption { max-width: 62rem; margin: .8rem 0 3rem; padding-left: 1.2rem; }
.caption li { margin: .25rem 0; }
""".strip()

_SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const read = section.querySelector(".read"), hint = read.textContent;
  const texts = [...section.querySelectorAll(".text")];
  const mark = (k) => {
    section.querySelectorAll(".on").forEach((glyph) => glyph.classList.remove("on"));
    if (k === null) { read.textContent = hint; return; }
    const same = texts.map((text) => text.querySelector(`[data-k="${k}"]`));
    same.forEach((glyph) => glyph.classList.add("on"));
    const first = same[0].title.split(" | ");
    read.textContent = first[0] + " (" + first[2] + "): " +
      texts.map((text, t) => text.dataset.name + " " + same[t].title.split(" | ")[1]).join("; ");
  };
  section.querySelector(".panels").addEventListener("mouseover", (event) => {
    const glyph = event.target.closest("[data-k]");
    mark(glyph ? glyph.dataset.k : null);
  });
  section.querySelector(".panels").addEventListener("mouseleave", () => mark(null));
}
""".strip()


def page(sheets: Sequence[Sheet]) -> str:
    """Return the page of all sheets."""
    body = "\n".join(_section(sheet) for sheet in sheets)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{escape(sheets[0].heading)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n"
        f"<script>\n{_SCRIPT}\n</script>\n</body>\n</html>\n"
    )


def _section(sheet: Sheet) -> str:
    colours = scale(sheet.top)
    panels = "\n".join(_panel(panel, colours) for panel in sheet.panels)
    caption = "\n".join(f"<li>{escape(line)}</li>" for line in sheet.caption)
    return (
        f'<section>\n<h1>{escape(sheet.heading)}</h1>\n<p class="subtitle">{escape(sheet.subtitle)}</p>\n'
        f'{_bar(sheet)}\n<div class="panels">\n{panels}\n</div>\n'
        f'<p class="read">Point at a token to compare it across the three panels.</p>\n'
        f'<ul class="caption">\n{caption}\n</ul>\n</section>'
    )


def _bar(sheet: Sheet) -> str:
    """The scale: a gradient with its ends named below it and the reference above."""
    colours = scale(1.0)
    stops = ", ".join(colours(k / 16)[0] for k in range(17))
    value, label = sheet.reference
    marks = (
        _mark(0.0, "first", "0 nats"),
        _mark(value / sheet.top, "above last" if value > 0.8 * sheet.top else "above", f"{label} {value:.3f}"),
        _mark(sheet.max_entropy / sheet.top, "last", f"S_max {sheet.max_entropy:.3f}"),
    )
    return f'<div class="bar" style="background:linear-gradient(to right, {stops})">{"".join(marks)}</div>'


def _mark(share: float, side: str, label: str) -> str:
    return f'<span class="{side}" style="left:{share:.2%}"><b>{escape(label)}</b></span>'


def _panel(panel: Panel, colours: Callable[[float], tuple[str, str]]) -> str:
    glyphs = "".join(_glyph(k, glyph, *colours(glyph.entropy)) for k, glyph in enumerate(panel.glyphs))
    name = escape(panel.title.partition(" (")[0].lower(), quote=True)
    return (
        f'<div>\n<h2>{escape(panel.title)}</h2>\n<p class="note">{escape(panel.note)}</p>\n'
        f'<p class="text" data-name="{name}">{glyphs}</p>\n</div>'
    )


def _glyph(k: int, glyph: Glyph, background: str, ink: str) -> str:
    error = f" ± {glyph.stderr:.3f}" if glyph.stderr else ""
    size = "" if glyph.n_bytes == 1 else f", {glyph.n_bytes} bytes"
    title = f"{glyph.shown}{size} | {glyph.entropy:.3f}{error} nats | surprisal {glyph.surprisal:.2f} nats"
    shown = escape(glyph.shown)
    body = f"<u>{shown}</u>" if glyph.faint else shown
    after = "<br>" if glyph.ends_line else "<wbr>" if glyph.faint else ""
    return f'<i data-k="{k}" style="background:{background};color:{ink}" title="{escape(title)}">{body}</i>{after}'
