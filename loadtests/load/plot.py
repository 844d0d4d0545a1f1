"""A load's timeline as a picture: what was answered, what went wrong, how slow, and where the phases were."""

from __future__ import annotations

from pathlib import Path

from loadtests.load.load import Load


def plot(load: Load, file: Path, title: str = "") -> None:
    """Write a PNG. Needs matplotlib, which is loaded here and nowhere else."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    step = 1.0 if load.seconds >= 20 else max(0.1, load.seconds / 40)
    figure, (rates, latencies) = pyplot.subplots(2, 1, figsize=(11, 6.5), sharex=True, layout="constrained")
    timeline = load.timeline(step=step)
    at = [begin + summary.seconds / 2 for begin, summary in timeline]
    for status in sorted({status for _, summary in timeline for status in summary.statuses}):
        counts = [summary.statuses.get(status, 0) / summary.seconds for _, summary in timeline]
        rates.plot(at, counts, label=str(status), linewidth=1.8)
    lost = [summary.offered_rate - summary.answered_rate for _, summary in timeline]
    if any(lost):
        rates.plot(at, lost, label="no answer", color="black", linestyle=":", linewidth=1.8)
    rates.plot(at, [summary.offered_rate for _, summary in timeline], label="offered", color="grey", linewidth=0.8)
    rates.set_ylabel("requests/s")
    rates.set_ylim(bottom=0)
    for client in load.clients:
        series = load.timeline(client, step)
        latencies.plot(at, [summary.p99 * 1e3 for _, summary in series], label=f"{client} p99", linewidth=1.5)
        latencies.plot(
            at, [summary.p50 * 1e3 for _, summary in series], label=f"{client} p50", linewidth=0.9, alpha=0.7
        )
    latencies.set_ylabel("ms from when due")
    latencies.set_yscale("log")
    latencies.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    latencies.yaxis.set_minor_formatter(ticker.NullFormatter())
    latencies.set_xlabel("seconds")
    for name, (since, _) in load.phases.items():
        for axes in (rates, latencies):
            axes.axvline(since, color="tab:purple", linewidth=0.8, linestyle="--")
        rates.annotate(
            name, (since, 1.0), xycoords=("data", "axes fraction"), fontsize=8, rotation=12, color="tab:purple"
        )
    for axes in (rates, latencies):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if title:
        figure.suptitle(title)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
