"""The pictures: what a short delay costs, and what a call costs, for us and for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

INK, FAINT, OTHERS = "#24292f", "#d0d7de", "#8c959f"
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
BLUES = ("#7fb2ef", "#5598e7", "#2166c9", "#0d2f66")


@frozen
class Curve:
    """One way to wait, under several settings of the knob: (delay, requests) pairs."""

    name: str
    points: Sequence[tuple[float, float]]


@frozen
class Dot:
    """One fixed schedule."""

    name: str
    delay: float
    requests: float


def draw(path: Path, curves: Sequence[Curve], dots: Sequence[Dot]) -> None:
    """Draw the picture into a file, as what its name ends with; needs matplotlib."""
    figure = _figure((8.0, 5.2))
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=(0.085, 32.0), ylim=(0.015, 700.0))
    for curve, colour in zip(curves, BLUES, strict=True):
        axes.plot(*zip(*curve.points, strict=True), color=colour, linewidth=2, marker="o", markersize=5)
        delay, requests = curve.points[0]
        axes.annotate(
            curve.name,
            (delay, requests),
            (-9, 0),
            textcoords="offset points",
            color=INK,
            ha="right",
            va="center",
        )
    for dot in dots:
        axes.plot(dot.delay, dot.requests, color=OTHERS, marker="D", markersize=7)
        axes.annotate(dot.name, (dot.delay, dot.requests), (8, 3), textcoords="offset points", color=INK)
    axes.set_title(
        "blue: piapi_async, delay = 0.5 … 12 s; grey: the schedules of others",
        loc="left",
        fontsize=10,
        color=INK,
    )
    axes.set_xticks(TICKS)
    axes.set_xlabel("95 % of ends are noticed within so many seconds", color=INK)
    axes.set_ylabel("poll requests per task", color=INK)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:  # noqa: ANN401 - of a package that may not be installed
    import matplotlib as mpl  # noqa: PLC0415 - only for those who want the picture
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update({"svg.hashsalt": "piapi_async", "font.size": 10, "svg.fonttype": "none"})
    return Figure(figsize=size, facecolor="white", layout="constrained")


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401 - the same
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


@frozen
class Bar:
    """One client's figure."""

    name: str
    value: float
    own: bool


def draw_bars(path: Path, title: str, bars: Sequence[Bar]) -> None:
    """Draw figures beside each other, the first on top; needs matplotlib."""
    figure = _figure((8.0, 0.45 * len(bars) + 0.8))
    axes = figure.subplots()
    names, values = [bar.name for bar in bars], [bar.value for bar in bars]
    drawn = axes.barh(names, values, color=[BLUES[2] if bar.own else OTHERS for bar in bars], height=0.6)
    axes.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=4, color=INK)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlim(0, max(values) * 1.1)
    axes.set_xticks([])
    axes.tick_params(which="both", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, path)
