"""Small plots, as SVG in a page. Each has a name for screen readers, which says in words what the plot shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spoold.model.page import escaped

HEIGHT = 16
BAR, STEP = 2, 3  # width of a bar, and from the start of one to the next
MOST = 64  # bars
BUCKETS = 24  # bars of a histogram


def bars(values: Sequence[float], name: str, height: int = HEIGHT, more: str = "") -> str:
    """Return a bar for each value, the largest as high as the plot. If there are many, a bar is the largest of a few.

    ``more`` are attributes of the SVG.
    """
    each = max(1, math.ceil(len(values) / MOST))
    shown = [max(0.0, *values[at : at + each]) for at in range(0, len(values), each)]
    largest = max(shown, default=0.0)
    if largest <= 0:
        return ""
    # All bars are one path, since a page may have thousands. Each goes to x at the bottom, as wide as a bar, up, and
    # back.
    heights = (max(1, round(height * (value / largest))) if value else 0 for value in shown)
    path = "".join(f"M{number * STEP} {height}h{BAR}v-{tall}h-{BAR}z" for number, tall in enumerate(heights) if tall)
    return _svg(len(shown) * STEP, height, f'<path d="{path}"/>', name, more)


def histogram(values: Sequence[float], name: str) -> str:
    """Return how many of the values are of each size, on a logarithmic scale from the least to the largest."""
    found = sorted(value for value in values if value > 0)
    if not found:
        return ""
    low, high = math.log(found[0]), math.log(found[-1])
    counts = [0] * BUCKETS
    for value in found:
        counts[min(BUCKETS - 1, int(BUCKETS * (math.log(value) - low) / ((high - low) or 1)))] += 1
    # A count of one can be seen beside a count of a thousand.
    return bars([math.log1p(count) for count in counts], name, 3 * HEIGHT, ' preserveAspectRatio="none"')


def shares(parts: Sequence[tuple[int, str]], name: str, width: int = 600) -> str:
    """Return a bar of ``parts``. Each has a size, and a class of the page's style."""
    total = sum(number for number, _ in parts)
    drawn, before = [], 0
    for number, style in parts:
        left, right = width * before / total, width * (before + number) / total
        drawn.append(f'<path class="{style}" d="M{left:.1f} 0h{max(1.0, right - left - 1):.1f}v{HEIGHT}H{left:.1f}z"/>')
        before += number
    return _svg(width, HEIGHT, "".join(drawn), name) if total else ""


def _svg(width: int, height: int, drawn: str, name: str, more: str = "") -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"{more}'
    return f'<svg {size} role="img" aria-label="{escaped(name)}">{drawn}</svg>'
