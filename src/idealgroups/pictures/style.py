"""Colors, sizes and files that all figures share. Import this only where matplotlib is installed."""

from __future__ import annotations

import io
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

WIDTH, LEFT, RIGHT = 9.0, 0.78, 0.72
"""Inches: of a figure, and of its margins left and right of the axes."""

POINTS = 72
ENDINGS = (".png", ".svg", ".pdf")

STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
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


def panels(heights: Sequence[float], title: str, captioned: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels one below the other, of the given heights in inches, and room for a caption."""
    gap, above, below = 0.42, 0.62, 0.95 if captioned else 0.6
    total = sum(heights) + gap * (len(heights) - 1) + above + below
    figure = Picture(figsize=(WIDTH, total))
    inner, at, found = (WIDTH - LEFT - RIGHT) / WIDTH, total - above, []
    for height in heights:
        at -= height
        found.append(figure.add_axes((LEFT / WIDTH, at / total, inner, height / total)))
        at -= gap
    figure.text(0.16 / WIDTH, 1 - 0.2 / total, title, weight="bold", va="center")
    return figure, found


def caption(figure: Figure, text: str) -> None:
    """Write one line below everything."""
    figure.text(0.16 / WIDTH, 0.18 / figure.get_figheight(), text, va="center", color=INK, fontsize=9)


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
