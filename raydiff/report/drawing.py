"""How the reports' figures look. Matplotlib's object interface only: nothing global is touched, or it is put back.

Colours are Okabe and Ito's, which differ under every kind of colour blindness; lines differ in their dashes
too. Categories are named beside the figures, in HTML, where every script and every sign is safe.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

INK, MUTED, GRID = "#1f2933", "#5f6c7b", "#e3e8ee"
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
)
_METHOD_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_METHOD_DASHES = ("-", "--", "-.", ":")
_FONT = "DejaVu Sans"  # comes with matplotlib, so figures look the same everywhere
TEXT = 8.0
_OF_THE_PAGE = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BLUE: "--accent",
    "white": "--card",
    "#ffffff": "--card",
}
_NOT_NEEDED = re.compile(r"<\?xml.*?<svg|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|\n", re.DOTALL)
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'href="#([^"]*)"')
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"| xmlns(?::xlink)?="[^"]*"| version="1.1"')
_PLACES = re.compile(r'( (?:d|x|y|transform)=")([^"]*)"')
_FRACTION = re.compile(r"\d+\.\d{2,}")


def method_style(number: int) -> tuple[str, str]:
    """Colour and dashes of the run with this number."""
    return _METHOD_COLOURS[number % len(_METHOD_COLOURS)], _METHOD_DASHES[number % len(_METHOD_DASHES)]


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one plot in it."""
    made, (axes,) = figure_of(width, height, [1])
    return made, axes


def figure_of(width: float, height: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with plots of these relative heights above one another, which share the x axis."""
    made = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    rows = made.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))[:, 0]
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(labelsize=TEXT, colors=MUTED, labelfontfamily=_FONT)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(fontsize=TEXT, color=INK, fontfamily=_FONT)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    return made, list(rows)


def legend(axes: Axes, title: str | None = None) -> None:
    """Names of the lines: inside at the lower right with a title, else above the plot."""
    lines, names = axes.get_legend_handles_labels()
    style: dict[str, Any] = {"prop": {"family": _FONT, "size": TEXT - 0.5}, "labelcolor": INK, "edgecolor": "none"}
    if title:
        axes.legend(lines, names, loc="lower right", title=title, title_fontsize=TEXT - 0.5, **style)
    elif lines:
        assert isinstance(axes.figure, Figure)
        axes.figure.legend(lines, names, loc="outside upper left", ncols=2, columnspacing=1.4, borderpad=0.2, **style)


def plain(text: str) -> str:
    """A user's text for matplotlib: no formula, no leading `_` (it would hide a legend), known signs only."""
    glyphs = _glyphs()
    known = "".join(sign if sign == "\n" or ord(sign) in glyphs else "?" for sign in text)
    return known.replace("$", r"\$").lstrip("_") or "?"


def png(made: Figure) -> bytes:
    """The figure as a PNG picture."""
    sink = io.BytesIO()
    made.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def inline_svg(made: Figure) -> Markup:
    """The figure as a part of a page: in the page's colours, light or dark, text as text, and no more than is seen.

    What is drawn must lie inside its axes: nothing is clipped.
    """
    for axes in made.axes:
        for artist in (*axes.get_children(), *axes.get_xgridlines(), *axes.get_ygridlines()):
            artist.set_clip_on(False)
    sink = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "raydiff"}):
        made.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    text = _NOT_NEEDED.sub(
        lambda found: "<svg" if found[0].endswith("<svg") else " " * (found[0] == "\n"), sink.getvalue()
    )
    used = set(_USED.findall(text))
    text = _ID.sub(lambda found: found[0] if found[1] in used else "", _SIZE.sub("", text))
    text = _PLACES.sub(lambda found: f'{found[1]}{_FRACTION.sub(_rounded, found[2])}"', text)
    for colour, name in _OF_THE_PAGE.items():
        text = re.sub(rf"(?<=[ :]){colour}(?=[;\"])", f"var({name})", text, flags=re.IGNORECASE)
    return Markup(" ".join(text.split()))


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())
