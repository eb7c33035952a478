"""How the seats of pools were used, as a picture. The only module that imports matplotlib.

The same hours give the same picture, to the byte, with the same version of matplotlib: it depends on no screen, no
user's settings and no time of day.
"""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib import dates, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from farmlease.domain.usage import HOUR_MS, Hour, summed

__all__ = ["picture"]

#: Blue for what is held, grey for the limit, red for who was denied: distinguishable by the colour-blind and in grey.
_HELD, _AVERAGE, _LIMIT, _DENIED, _INK, _FAINT = "#2a78b5", "#8fc1e3", "#555555", "#c8433a", "#333333", "#e4e4e4"
_INCHES, _PANEL, _DOTS = 11.0, 3.1, 120


def picture(found: Mapping[str, Sequence[Hour]]) -> bytes:
    """Return a PNG with a panel for each pool; each must have an hour."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("font", family="DejaVu Sans", size=9)
        mpl.rc("axes", edgecolor=_INK)
        mpl.rc("text", color=_INK)
        figure = Figure(figsize=(_INCHES, _PANEL * len(found) + 0.3), dpi=_DOTS, layout="constrained")
        panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, (pool, hours) in zip(panels, found.items(), strict=True):
            _draw(axes, pool, hours)
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})  # type: ignore[no-untyped-call] # matplotlib's
    return file.getvalue()


def _draw(axes: Any, pool: str, hours: Sequence[Hour]) -> None:  # noqa: ANN401 - matplotlib's own, not typed
    total = summed(hours)
    times = [_moment(hour.begins_at) for hour in hours]
    times.append(_moment(hours[-1].begins_at + HOUR_MS))  # the last hour is as wide as the others
    peaks, averages = [hour.peak for hour in hours], [hour.average for hour in hours]
    denied = [sum(hour.denials.values()) for hour in hours]
    axes.stairs(averages, times, fill=True, color=_AVERAGE, label="average held")
    axes.stairs(peaks, times, color=_HELD, linewidth=1.6, baseline=None, label="most held at once")
    top = max(total.capacity, total.peak, 1)
    if total.capacity:
        axes.stairs(
            [hour.capacity for hour in hours],
            times,
            baseline=None,
            color=_LIMIT,
            linewidth=1.2,
            linestyle=(0, (5, 3)),
            label="seats",
        )
    axes.set_ylim(0, top * (1.35 if any(denied) else 1.1))  # room for the denials above what was held
    axes.set_xlim(times[0], times[-1])
    axes.set_ylabel("seats")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=5, integer=True))
    locator = dates.AutoDateLocator(tz=UTC, minticks=5, maxticks=12)  # type: ignore[no-untyped-call] # likewise
    axes.xaxis.set_major_locator(locator)
    formatter = dates.ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call] # likewise
    axes.xaxis.set_major_formatter(formatter)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if any(denied):
        _draw_denied(axes, times, denied)
    numbers = f"most {total.peak}" + (f" of {total.capacity}" if total.capacity else "")
    numbers += f", average {total.average:.1f}, denied {sum(denied):,}"
    axes.set_title(pool, loc="left", fontsize=12, fontweight="bold")
    axes.set_title(f"{numbers} (UTC)", loc="right", fontsize=9)
    axes.legend(loc="upper left", ncols=4, frameon=False, fontsize=8, bbox_to_anchor=(0, -0.12), borderaxespad=0)


def _draw_denied(axes: Any, times: Sequence[datetime], denied: Sequence[int]) -> None:  # noqa: ANN401 - as above
    """Draw the denials as bars that hang from the top, on an axis of their own."""
    other = axes.twinx()
    other.stairs(denied, times, fill=True, color=_DENIED, alpha=0.75)
    other.set_ylim(max(denied) * 5, 0)
    other.set_yticks([0, max(denied)])
    other.tick_params(axis="y", colors=_DENIED, labelsize=8)
    other.set_ylabel("denied", color=_DENIED, loc="top", fontsize=8)
    other.spines[["top", "left", "bottom", "right"]].set_visible(False)
    axes.fill_between([], [], color=_DENIED, alpha=0.75, label="denied (from the top)")


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
