"""Figures of the book: one colour per symbol family, readable on light and on dark pages.

A figure is drawn on a transparent ground in colours of middle lightness, each with a contrast of at
least 3.5 against the book's light and dark pages. `show` stores it as a PNG together with its
alternative text, so it needs no kernel in the book and reads the same in Jupyter and Colab.

Matplotlib is imported when a figure is made, not when the library is.
"""

from __future__ import annotations

import base64
import io
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# The book's style sheet has the same seven as `--hue-*`, and a test compares them.
DATA = "#2f7fd0"  # x_0, q(x_0), everything that is data
NOISY = "#9461d6"  # x_t, q(x_t), the posterior: what lies between data and noise
NOISE = "#d9562b"  # eps, z, N(0, I)
SCHEDULE = "#1f8f6a"  # beta, alpha, alpha_bar, posterior variance, SNR
NETWORK = "#b9790a"  # whatever a network says: eps_theta, x_0_hat, mu_theta, losses
STEP = "#c9478f"  # sampler's choices: sigma, eta, kept steps
INK = "#757b85"  # axes, text, guides

PIXELS_PER_INCH = 100  # CSS pixels: a figure 7 inches wide is 700 px wide on the page
SHARPNESS = 2  # device pixels stored for each CSS pixel

# Artists read Matplotlib's settings when they are made. So the book's style holds from `subplots`
# until a figure is drawn, and then this gives the caller's own settings back.
_callers_settings = ExitStack()


def style() -> dict[str, Any]:
    """Matplotlib settings of every figure in the book, for `matplotlib.rcParams`."""
    from matplotlib.rcsetup import cycler

    return {
        "figure.facecolor": "none",
        "figure.constrained_layout.use": True,
        "figure.dpi": PIXELS_PER_INCH,
        "savefig.facecolor": "none",
        "axes.facecolor": "none",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 11,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=[DATA, NOISE, NOISY, SCHEDULE, NETWORK, STEP]),
        "axes.formatter.use_mathtext": True,
        "grid.color": INK,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "patch.linewidth": 0.8,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "legend.fontsize": 10.5,
        "font.size": 10.5,
        "mathtext.fontset": "cm",
        "image.cmap": "gray",
        "image.interpolation": "nearest",
    }


def subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes in the book's style, like `matplotlib.pyplot.subplots`.

    The figure belongs to no window, so nothing but `show` displays it. Matplotlib's settings are
    the book's until `show` or `png` draws a figure; then they are again what they were before.

    Args:
        rows, columns: of the grid of axes.
        **options: those of `pyplot.subplots` (`figsize` in units of 100 CSS pixels, `sharex`,
            `width_ratios`, ...).
    """
    import matplotlib
    from matplotlib.figure import Figure

    _callers_settings.enter_context(matplotlib.rc_context(style()))
    size = options.pop("figsize", (7.0, 3.2))
    grid = {"nrows": rows, "ncols": columns, **options}
    figure = Figure(figsize=size)
    return figure, figure.subplots(**grid)


def fade(colour: str) -> Colormap:
    """A colour map from nothing to `colour`, for densities: reads on light and on dark pages."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("fade", [to_rgba(colour, 0.0), to_rgba(colour, 1.0)])


def png(figure: Figure) -> bytes:
    """The figure as a PNG with a transparent ground and no date or version in it."""
    import matplotlib

    stream = io.BytesIO()
    resolution = PIXELS_PER_INCH * SHARPNESS
    with _callers_settings, matplotlib.rc_context(style()):
        figure.savefig(stream, format="png", dpi=resolution, metadata={"Software": None})
    return stream.getvalue()


def show(figure: Figure, alt: str, caption: str = "") -> None:
    """Display `figure` with its alternative text and, under it, a caption.

    Args:
        figure: what `subplots` returned (any Matplotlib figure will do).
        alt: what the picture shows, for a reader who cannot see it: one or two sentences of plain
            text.
        caption: Markdown, `$..$` allowed: the question that the figure answers, and what to look
            at.

    Raises:
        ValueError: if `alt` is empty.
    """
    from IPython.display import Markdown, display

    if not alt.strip():
        raise ValueError(f"alt = {alt!r}: say in a sentence what the figure shows")
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    display(
        {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width}},
        raw=True,
    )
    if caption:
        display(Markdown(caption))
