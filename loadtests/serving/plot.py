"""The comparison as a picture: what each server can do, and how long an answer takes on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Saturation(Protocol):
    """What is drawn of a server at saturation."""

    @property
    def server(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def rate(self) -> float: ...


class Place(Protocol):
    """What is drawn of a latency curve."""

    @property
    def server(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def rate(self) -> float: ...
    @property
    def p50(self) -> float: ...
    @property
    def p99(self) -> float: ...


def plot(saturated: Sequence[Saturation], curve: Sequence[Place], file: Path) -> None:
    """Write an SVG or PNG, by the file's suffix. Needs matplotlib, which is loaded here and nowhere else."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(14, 6), layout="constrained")
    shown = list(reversed(saturated))
    labels = [f"{m.server}, {m.encoding}, {m.rows} row{'s' * (m.rows > 1)}" for m in shown]
    ours = ["tab:blue" if m.server.startswith("go_infer") else "tab:grey" for m in shown]
    drawn = bars.barh(labels, [m.rate * m.rows for m in shown], color=ours)
    bars.bar_label(drawn, [f"{m.rate * m.rows:,.0f}" for m in shown], padding=3, fontsize=8)
    bars.set_xscale("log")
    bars.set_xlabel("inferences per second at saturation")
    bars.tick_params(axis="y", labelsize=8)
    bars.margins(x=0.15)
    for number, name in enumerate(dict.fromkeys((p.server, p.encoding) for p in curve)):
        places = [p for p in curve if (p.server, p.encoding) == name]
        rates = [p.rate for p in places]
        colour = f"C{number}"
        lines.plot(rates, [p.p99 for p in places], color=colour, marker="o", markersize=3, label=", ".join(name))
        lines.plot(rates, [p.p50 for p in places], color=colour, linewidth=0.8, linestyle=":")
    lines.set_xscale("log")
    lines.set_yscale("log")
    for axis in (lines.xaxis, lines.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    lines.set_xlabel("requests per second offered, open loop, one row each")
    lines.set_ylabel("ms from when due: p99, and p50 dotted")
    lines.grid(alpha=0.25, which="both")
    if curve:
        lines.legend(fontsize=8)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
