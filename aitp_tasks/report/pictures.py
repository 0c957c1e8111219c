"""The report's pictures: SVG for lines and bars, PNG for densities.

Colours are Okabe and Ito's, which people with colour blindness tell apart; what
matters also differs in shape or hatching. Equal facts give equal bytes.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.report.facts import SCORES, Densities, ScoreCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, VERMILION, GREY = "#0072B2", "#E69F00", "#D55E00", "#6B7280"
#: Cells per axis that a picture can show; larger grids are thinned.
_CELLS = 400
#: Densities this far below the highest are not shown, in powers of ten.
_DECADES = 4
_RATIO_DECADES = 3
_RATIO_LABEL = "log₁₀(p_sft / p_corpus)"
_CHANGE_DECADES = 1
_CHANGE_LABEL = "log₁₀(p_sft with pairs / p_sft without)"
_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#E5E7EB",
    "axes.axisbelow": True,
    "svg.hashsalt": "aitp",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Picture:
    """A picture as a file: ``svg`` or ``png``."""

    kind: str
    data: bytes

    @property
    def uri(self) -> str:
        """As a data URI."""
        kind = {"svg": "image/svg+xml", "png": "image/png"}[self.kind]
        return f"data:{kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def density(
    values: NDArray[np.float32], densities: Densities, levels: NDArray[np.float64], bandwidth: float
) -> Picture:
    """One density as filled contours, the difference set as points; ``levels`` from ``density_levels``."""
    if densities.in_one_dimension:
        return _curve(values[0], densities, levels, bandwidth)
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator

    step = _step(densities)
    x, y = densities.x[::step], densities.y[::step]
    with _figure(5.2, 4.4) as (figure, axes):
        axes.set_facecolor("white")
        axes.grid(visible=False)
        # Contours want logarithms; what lies below the lowest level stays white.
        shown = np.maximum(values[::step, ::step], levels[0] / 10)
        norm = LogNorm(levels[0], levels[-1])
        contours = axes.contourf(x, y, shown, levels=levels, cmap="Blues", norm=norm)
        bar = figure.colorbar(contours, ax=axes, label="density (per unit area, log scale)")
        bar.ax.yaxis.set_major_locator(LogLocator(10))
        bar.ax.yaxis.set_major_formatter(LogFormatterSciNotation(10))
        bar.ax.minorticks_off()
        if len(densities.points):
            size = float(np.clip(2500 / len(densities.points), 2, 22))
            axes.scatter(
                densities.points[:, 0],
                densities.points[:, 1],
                s=size,
                marker="x",
                color=VERMILION,
                linewidths=0.9,
                alpha=0.9,
            )
        axes.set_xlim(*_extent(densities, levels[0], axis=0))
        axes.set_ylim(*_extent(densities, levels[0], axis=1))
        axes.set_xlabel(f"principal axis 1 (projected units; bandwidth {bandwidth:.3g})")
        axes.set_ylabel("principal axis 2 (projected units)")
        return _png(figure)


def _curve(
    values: NDArray[np.float32], densities: Densities, levels: NDArray[np.float64], bandwidth: float
) -> Picture:
    """A density of one dimension, the difference set as marks on the axis."""
    with _figure(5.2, 3.4) as (figure, axes):
        axes.semilogy(densities.x, np.maximum(values, levels[0] / 10), color=BLUE)
        axes.plot(
            densities.points[:, 0],
            np.full(len(densities.points), levels[0]),
            color=VERMILION,
            marker="|",
            linestyle="none",
        )
        axes.set_ylim(levels[0] / 2, levels[-1] * 2)
        axes.set_xlim(*_extent(densities, levels[0], axis=0))
        axes.set_xlabel(f"principal axis 1 (projected units; bandwidth {bandwidth:.3g})")
        axes.set_ylabel("density (per unit length, log scale)")
        return _png(figure)


def ratio(densities: Densities, levels: NDArray[np.float64], tau: float | None) -> Picture:
    """p_sft / p_corpus where there is a corpus; a line at ``tau`` where that is compared with the ratio."""
    shown = _decades(densities.sft, densities.corpus, densities, levels)
    lines = [] if tau is None else [(shown, tau, "solid")]
    return _map(shown, _RATIO_DECADES, _RATIO_LABEL, densities, levels, lines)


def change(densities: Densities, levels: NDArray[np.float64], tau: float | None) -> Picture:
    """What the pairs of earlier versions have added; lines at ``tau`` without them (dashed) and with them.

    ``densities.sft_alone`` must not be None.
    """
    assert densities.sft_alone is not None
    shown = _decades(densities.sft, densities.sft_alone, densities, levels)
    with_pairs = _decades(densities.sft, densities.corpus, densities, levels)
    alone = _decades(densities.sft_alone, densities.corpus, densities, levels)
    lines = [] if tau is None else [(alone, tau, "dashed"), (with_pairs, tau, "solid")]
    return _map(shown, _CHANGE_DECADES, _CHANGE_LABEL, densities, levels, lines)


def _decades(
    above: NDArray[np.float32],
    below: NDArray[np.float32],
    densities: Densities,
    levels: NDArray[np.float64],
) -> NDArray[np.float64]:
    """log10(above / below) of the cells that are drawn; NaN, which stays white, where there is no corpus."""
    step = _step(densities)
    decades = np.log10(np.maximum(above, 1e-30) / np.maximum(below, 1e-30))[::step, ::step]
    return np.where(densities.corpus[::step, ::step] > levels[0], decades, np.nan)


def _map(
    values: NDArray[np.float64],
    limit: float,
    label: str,
    densities: Densities,
    levels: NDArray[np.float64],
    lines: list[tuple[NDArray[np.float64], float, str]],
) -> Picture:
    """Decades between ``-limit`` and ``limit``, in colours around 0; lines where other decades reach tau."""
    from matplotlib.colors import TwoSlopeNorm

    step = _step(densities)
    x, y = densities.x[::step], densities.y[::step]
    shown = values.clip(-limit, limit)
    with _figure(5.2, 4.4) as (figure, axes):
        axes.set_facecolor("white")
        axes.grid(visible=False)
        if densities.in_one_dimension:
            axes.plot(x, shown[0], color=BLUE)
            axes.axhline(0.0, color=GREY, linewidth=0.8)
            for decades, tau, style in lines:
                for place in np.flatnonzero(np.diff(np.sign(decades[0] - np.log10(tau)))):
                    axes.axvline(x[place], color="black", linewidth=1.2, linestyle=style)
            axes.set_ylabel(label)
        else:
            edges = np.linspace(-limit, limit, 25)
            contours = axes.contourf(
                x, y, shown, levels=edges, cmap="PuOr", norm=TwoSlopeNorm(0.0, -limit, limit)
            )
            figure.colorbar(contours, ax=axes, label=label)
            for decades, tau, style in lines:
                if np.nanmin(decades) < np.log10(tau) < np.nanmax(decades):
                    line = [np.log10(tau)]
                    axes.contour(x, y, decades, line, colors="black", linewidths=1.2, linestyles=style)
            axes.set_ylim(*_extent(densities, levels[0], axis=1))
            axes.set_ylabel("principal axis 2 (projected units)")
        axes.set_xlim(*_extent(densities, levels[0], axis=0))
        axes.set_xlabel("principal axis 1 (projected units)")
        return _png(figure)


def _step(densities: Densities) -> int:
    """Every how manieth cell is drawn."""
    return max(-(-int(max(densities.corpus.shape)) // _CELLS), 1)


def density_levels(densities: Densities) -> NDArray[np.float64]:
    """Contour levels for both densities: three a decade, down from the higher peak."""
    peak = float(max(densities.corpus.max(), densities.sft.max()))
    top = np.log10(peak) if peak > 0 else 0.0
    # A hair above the peak, which rounding would else leave out.
    return np.logspace(top - _DECADES, top + 1e-6, 3 * _DECADES + 1)


def _extent(densities: Densities, floor: float, axis: int) -> tuple[float, float]:
    """The range of one axis that has density above the floor, or points."""
    coordinates = densities.y if axis == 1 else densities.x
    filled = (np.maximum(densities.corpus, densities.sft) > floor).any(axis=1 if axis == 1 else 0)
    shown = np.concatenate([coordinates[filled], densities.points[:, axis]])
    if not len(shown):
        shown = coordinates
    low, high = float(shown.min()), float(shown.max())
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def sweep(counts: list[tuple[float, int]], tau: float, score: str, selected_below: int) -> Picture:
    """Documents that each threshold would select, the run's own marked."""
    with _figure(5.2, 3.2) as (figure, axes):
        taus, documents = zip(*counts, strict=True)
        axes.plot(taus, documents, color=BLUE, marker="o", markersize=4)
        axes.axvline(tau, color=VERMILION, linestyle="--", linewidth=1.2)
        axes.plot([tau], [selected_below], color=VERMILION, marker="D", markersize=6, linestyle="none")
        left = tau < (min(taus) + max(taus)) / 2
        axes.text(
            tau,
            0.98,
            f" τ = {tau:g}: {selected_below:,} ",
            transform=axes.get_xaxis_transform(),
            color=VERMILION,
            ha="left" if left else "right",
            va="top",
        )
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"threshold τ of {score}")
        axes.set_ylabel("documents below τ")
        _whole_thousands(axes)
        return _svg(figure)


def scores(counts: ScoreCounts, name: str, least: int) -> Picture:
    """Questions per score, stacked: kept, and not kept."""
    with _figure(5.2, 3.0) as (figure, axes):
        places = np.array(SCORES)
        axes.bar(places, counts.kept, color=BLUE, label="kept")
        bottom = counts.kept
        axes.bar(
            places,
            counts.dropped,
            bottom=bottom,
            color=ORANGE,
            hatch="///",
            edgecolor="white",
            label="not kept",
        )
        axes.axvline(least - 0.5, color=GREY, linestyle="--", linewidth=1.2, label=f"gate: at least {least}")
        axes.set_xticks(places)
        axes.set_xlim(0.4, 10.6)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(f"{name} (1 to 10)")
        axes.set_ylabel("questions")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        _whole_thousands(axes)
        return _svg(figure)


def losses(history: list[dict[str, Any]]) -> Picture:
    """Training loss over the steps, and that of validations where there are any."""
    from matplotlib.ticker import MaxNLocator

    with _figure(5.2, 3.2) as (figure, axes):
        for name, label, color in (
            ("loss", "training", BLUE),
            ("eval_loss", "held out for choosing", ORANGE),
        ):
            told = [(entry["step"], entry[name]) for entry in history if name in entry]
            if told:
                marker = "o" if len(told) <= 60 else None
                axes.plot(*zip(*told, strict=True), color=color, marker=marker, markersize=3.5, label=label)
        if any("eval_loss" in entry for entry in history):
            axes.legend(frameon=False)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("loss (nats per token)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def _whole_thousands(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


@contextmanager
def _figure(width: float, height: float) -> "Iterator[tuple[Figure, Axes]]":
    # Not pyplot: that keeps figures in a global list and wants a display's backend.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: "Figure") -> Picture:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return Picture("svg", sink.getvalue())


def _png(figure: "Figure") -> Picture:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=180, metadata={"Software": None})
    return Picture("png", sink.getvalue())
