"""Draws bar and line plots as SVG. Knows nothing of what they show."""

import math
from xml.sax.saxutils import escape

COLOURS = ["#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214"]
MOST_MARKED = 24
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 420, 70, 20, 50, 110


def nice_step(most, steps=5):
    """A step of 1, 2 or 5 times a power of ten, so that about `steps` of them reach `most`."""
    raw = max(most, 1e-9) / steps
    power = 10 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if raw <= factor * power)


def text(x, y, words, anchor="middle", size=12, turn=None):
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{turned}>{escape(str(words))}</text>'


def frame(title, unit, most, series):
    """Background, title, legend, and the vertical axis; and how a value becomes a height."""
    step = nice_step(most)
    top = step * max(1, math.ceil(most / step))
    height = HEIGHT - TOP - BOTTOM

    def y_of(value):
        return TOP + height * (1 - value / top)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', text(WIDTH / 2, 22, title, size=16)]
    for tick in range(round(top / step) + 1):
        y = y_of(tick * step)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y + 4, f"{tick * step:g}", "end"))
    parts.append(text(18, TOP + height / 2, unit, turn=-90))
    for number, name in enumerate(series):
        x = LEFT + number * 170
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(text(x + 17, 42, name, "start"))
    return parts, y_of


def document(parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif">\n' + "\n".join(parts) + "\n</svg>\n")


def bars(title, unit, labels, series):
    """`series`: name -> one (value, least, greatest) or None a label; least and greatest are drawn as a whisker."""
    found = [value for values in series.values() for value in values if value]
    parts, y_of = frame(title, unit, max((value[2] for value in found), default=1), series)
    group = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    wide = group * 0.8 / max(1, len(series))
    for at, label in enumerate(labels):
        left = LEFT + group * at + group * 0.1
        for number, values in enumerate(series.values()):
            if values[at]:
                parts += bar(left + wide * number, wide, y_of, values[at], COLOURS[number % len(COLOURS)])
        parts.append(text(left + group * 0.4, HEIGHT - BOTTOM + 14, label, "end", 10, turn=-30))
    return document(parts)


def bar(x, wide, y_of, value, colour):
    middle, least, greatest = value
    y, centre = y_of(middle), x + wide / 2
    return [f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{y_of(0) - y:.1f}" fill="{colour}"/>',
            f'<line x1="{centre:.1f}" x2="{centre:.1f}" y1="{y_of(least):.1f}" y2="{y_of(greatest):.1f}" stroke="black"/>']


def lines(title, unit, horizontal, series, logarithmic=True):
    """`series`: name -> points (x, y); with few points each is marked, and the x of each named."""
    points = [point for values in series.values() for point in values]
    parts, y_of = frame(title, unit, max((y for _x, y in points), default=1), series)
    scale = math.log10 if logarithmic else float
    places = [scale(x) for x, _y in points] or [0]
    low, span = min(places), (max(places) - min(places)) or 1
    width = WIDTH - LEFT - RIGHT - 60

    def x_of(x):
        return LEFT + 30 + width * (scale(x) - low) / span

    for x in sorted({x for x, _y in points}) if logarithmic else linear_ticks(low, span):
        parts.append(text(x_of(x), HEIGHT - BOTTOM + 18, f"{x:,.6g}"))
    parts.append(text(LEFT + 30 + width / 2, HEIGHT - BOTTOM + 42, horizontal))
    for number, values in enumerate(series.values()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(max(0, y)):.1f}" for x, y in sorted(values))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(values) <= MOST_MARKED:
            parts += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(max(0, y)):.1f}" r="3.5" fill="{colour}"/>' for x, y in values]
    return document(parts)


def linear_ticks(low, span):
    step = nice_step(span, 8)
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor((low + span) / step) + 1)]
