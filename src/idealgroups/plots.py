"""Results → matplotlib figures: log u over depth, flat where gradients propagate isometrically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import IdealGroupsError
from .results import Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_gradients(axes: Axes, measured: Sequence[tuple[str, Measurement]], emphasize: str | None = None) -> None:
    """Draw centered log u over execution order, with its least-squares line, one color a measurement.

    ``emphasize`` names the measurement drawn last and strongest.
    """
    for index, (title, one) in enumerate(measured):
        log_u = np.log([layer.relative for layer in one.layers])
        log_u = log_u - log_u.mean()
        x = np.arange(len(log_u))
        strong = emphasize is None or title == emphasize
        color = "black" if title == emphasize else f"C{index}"
        axes.plot(x, log_u, color=color, lw=0.8, alpha=0.6 if strong else 0.25)
        line = one.trend * (x - x.mean()) / max(len(x) - 1, 1)
        label = f"{title}: {one.trend:+.2f}".replace("-", "−")
        axes.plot(x, line, color=color, lw=2.5 if title == emphasize else 1.5, label=label, zorder=3 if strong else 2)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axhline(0, color="grey", lw=0.6, ls=":")
    axes.set_xlabel("weight layer, in execution order")
    axes.set_ylabel("log u − mean (u = ‖∂L/∂W‖ / ‖W‖)")
    axes.legend(title="trend of log u", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def save_gradients(path: str | Path, measured: Sequence[tuple[str, Measurement]], title: str) -> None:
    """Write :func:`draw_gradients` as PNG, SVG or PDF, by the ending of ``path``.

    Raises:
        IdealGroupsError: an ending matplotlib cannot write, or a path that cannot be written, no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise IdealGroupsError("plots need matplotlib; pip install 'idealgroups[plot]'.") from None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw_gradients(axes, measured)
    axes.set_title(title, loc="left")
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise IdealGroupsError(f"cannot draw {path}: {error}; end the name in .png, .svg or .pdf.") from None
    except OSError as error:
        raise IdealGroupsError(f"cannot write {path}: {error.strerror or error}.") from None
