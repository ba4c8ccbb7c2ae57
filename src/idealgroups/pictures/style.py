"""Colors, sizes and files that all figures share. Import this only where matplotlib is installed."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import IdealGroupsError

INK, FAINT, PAPER = "#1f2328", "#8c959f", "#ffffff"
BEFORE, AFTER = "#d55e00", "#0072b2"
"""Two colors that people with any kind of color blindness tell apart (Okabe and Ito 2008); their marks differ too."""

DARK = {INK: "#e6edf3", FAINT: "#7d8590", PAPER: "#0d1117", BEFORE: "#f0883e", AFTER: "#58a6ff"}
"""What these colors become on a dark page."""

WIDTH, LEFT, RIGHT = 6.4, 0.82, 0.7
"""Inches: of a figure, and of its margins left and right of the axes. A phone shows it at about four tenths."""

LINE, LETTERS, BOLD_LETTERS = 0.19, 84, 68
"""Inches: the height of a line of text; the letters of a line across a figure, plain and bold."""

POINTS = 72
ENDINGS = (".png", ".svg", ".pdf")

STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.hashsalt": "idealgroups",
    "svg.fonttype": "none",
    "text.parse_math": False,  # the name of a model may hold a dollar
}


class Picture(Figure):
    """A figure of matplotlib that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def panels(heights: Sequence[float], title: str, text: str | None, rows: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels one below the other, below a title.

    Args:
        heights: of the panels, in inches.
        title: one or more lines.
        text: what :func:`caption` writes below everything; None for no caption.
        rows: of the legend above the first panel.
    """
    gap, above, below = 0.46, 0.3 + 0.2 * rows + LINE * _lines(title, BOLD_LETTERS), 0.68 + foot(text)
    total = sum(heights) + gap * (len(heights) - 1) + above + below
    figure = Picture(figsize=(WIDTH, total))
    inner, at, found = (WIDTH - LEFT - RIGHT) / WIDTH, total - above, []
    for height in heights:
        at -= height
        found.append(figure.add_axes((LEFT / WIDTH, at / total, inner, height / total)))
        at -= gap
    write_title(figure, title)
    return figure, found


def write_title(figure: Figure, title: str) -> None:
    """Write a title above everything."""
    x, y = 0.12 / WIDTH, 1 - 0.1 / figure.get_figheight()
    figure.text(x, y, textwrap.fill(title, BOLD_LETTERS), weight="bold", va="top", linespacing=1.25)


def caption(figure: Figure, text: str) -> None:
    """Write a text below everything."""
    x, y = 0.12 / WIDTH, 0.1 / figure.get_figheight()
    figure.text(x, y, textwrap.fill(text, LETTERS), va="bottom", linespacing=1.25)


def foot(text: str | None) -> float:
    """Return the height of a caption in inches."""
    return 0.0 if text is None else 0.12 + LINE * _lines(text, LETTERS)


def _lines(text: str, letters: int) -> int:
    return len(textwrap.wrap(text, letters))


def check_target(path: str | Path) -> None:
    """Refuse a file that no figure can be written to, before anything is computed.

    Raises:
        IdealGroupsError: another ending than png, svg and pdf, or no such folder.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise IdealGroupsError(f"cannot draw {path}: end the name in .png, .svg or .pdf.")
    if not path.parent.is_dir():
        raise IdealGroupsError(f"cannot write {path}: there is no folder {path.parent}; make it first.")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the ending of ``path``.

    Raises:
        IdealGroupsError: another ending, or a file that cannot be written.
    """
    check_target(path)
    try:
        with rc_context(STYLE):
            figure.savefig(path, dpi=150, metadata={"Date": None} if Path(path).suffix.lower() == ".svg" else None)
    except OSError as error:
        raise IdealGroupsError(f"cannot write {path}: {error.strerror or error}.") from None


def finish(figure: Figure, path: str | Path | None) -> Figure:
    """Return the figure, written to ``path`` if there is one."""
    if path is not None:
        save(figure, path)
    return figure


def to_svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element without a background, in colors that the page's style can change.

    The colors are CSS variables with the light ones as defaults: ``--ink``, ``--faint``, ``--paper``, ``--before`` and
    ``--after``.
    """
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    names = {INK: "ink", FAINT: "faint", PAPER: "paper", BEFORE: "before", AFTER: "after"}
    for color, name in names.items():
        text = text.replace(color, f"var(--{name}, {color})")
    return text
