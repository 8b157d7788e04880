"""The parts that every report page is made of: one self-contained file, no script, no request.

Whatever is a plain ``str`` gets escaped; only :class:`Markup`, which the functions here return, does not.
Forgetting a wrapper therefore shows tags as text, never the other way round. A content security policy in
the page forbids scripts and every outside address as well, should something slip through.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from llavar import files
from llavar.errors import DataError
from llavar.records import Box

Child = str | int | float | None
"""What may stand inside an element; ``None`` is left out, everything but :class:`Markup` is escaped."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]*")
_COLOURS = 6


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Child) -> Markup:
    """Any value as HTML text that is also safe inside a quoted attribute.

    Characters that HTML forbids (controls, lone surrogates), which OCR and models do produce, become U+FFFD.
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", "" if value is None else str(value))))


def join(*children: Child) -> Markup:
    """The children one after the other."""
    return Markup("".join(map(escape, children)))


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """An element. ``class_`` is ``class``, ``stroke_width`` is ``stroke-width``; ``None`` leaves out.

    Raises :class:`DataError` for a ``src`` that is no inline picture: pages load nothing.
    """
    written: list[str] = []
    for key, value in attributes.items():
        if key == "src" and not _PICTURE.fullmatch(str(value)):
            raise DataError(f"{str(value)[:60]!r} is not an inline picture; a page may only hold data URIs")
        if value is not None:
            written.append(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"')
    start = f"<{name}{''.join(written)}>"
    return Markup(start if name in ("img", "meta", "br", "col") else f"{start}{join(*children)}</{name}>")


# --- text and layout ------------------------------------------------------------------------------------


def page(title: str, *body: Child, lead: Child = None, footer: Child = None) -> str:
    """A whole document, to be written as UTF-8."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(resources.files("llavar").joinpath("html.css").read_text("utf-8"))),
    )
    top = tag("header", tag("h1", title), lead and tag("p", lead, class_="lead"))
    content = join(top, tag("main", *body), footer and tag("footer", footer))
    return f"<!doctype html>\n{tag('html', head, tag('body', content), lang='en')}\n"


def write(text: str, path: Path) -> None:
    """Puts a page into a file, whole or not at all; its folder is made if need be.

    Raises :class:`DataError` if ``path`` is a folder.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it for the page")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)


def section(title: str, *body: Child, intro: Child = None) -> Markup:
    """A headed part of the page; ``intro`` says what there is to see."""
    return tag("section", tag("h2", title), intro and tag("p", intro, class_="intro"), *body)


def paragraph(*text: Child, kind: str | None = None) -> Markup:
    """``kind`` is a class of the style sheet: ``verdict``, ``note``, ``intro``."""
    return tag("p", *text, class_=kind)


def bullets(items: Iterable[Child]) -> Markup:
    return tag("ul", *(tag("li", item) for item in items))


def quote(text: str, *, empty: str = "(nothing)") -> Markup:
    """Text that a person, an engine or a model wrote, its line breaks kept."""
    return tag("q", text) if text.strip() else tag("span", empty, class_="none")


def verbatim(text: str) -> Markup:
    """A block of literal text."""
    return tag("pre", text)


def badge(text: str, *, good: bool) -> Markup:
    """A word with a tick or a cross, so that colour is not needed to tell."""
    return tag("span", "\u2713 " if good else "\u2717 ", text, class_="badge good" if good else "badge bad")


def details(summary: Child, *body: Child, opened: bool = False) -> Markup:
    """A part that folds away; it is unfolded in print."""
    return tag("details", tag("summary", summary), *body, open="" if opened else None)


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names with values, such as settings."""
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts"
    )


def rows(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names over values, one below the other, such as a question and its answers."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))


def heading(text: str) -> Markup:
    """The name of a card or of a part of a section."""
    return tag("h3", text)


def tile(label: Child, value: Child, *notes: Child, chart: Markup | None = None) -> Markup:
    """One important number, with a chart and remarks below it."""
    lines = (tag("p", note) for note in notes)
    top = (tag("p", label, class_="label"), tag("p", value, class_="value"))
    return tag("div", *top, chart, *lines, class_="tile")


def table(
    header: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    numeric: Iterable[int] = (),
    caption: Child = None,
) -> Markup:
    """``numeric`` columns, by index, are set flush right. Wide tables scroll inside themselves."""
    right = frozenset(numeric)

    def line(kind: str, cells: Sequence[Child]) -> Markup:
        return tag("tr", *(tag(kind, c, class_="n" if i in right else None) for i, c in enumerate(cells)))

    body = tag("tbody", *(line("td", row) for row in rows))
    whole = tag("table", caption and tag("caption", caption), tag("thead", line("th", header)), body)
    return tag("div", whole, class_="scroll", tabindex=0)


def picture(uri: str, alt: str) -> Markup:
    """``uri`` is a data URI of a PNG, JPEG, WebP or GIF."""
    return tag("img", src=uri, alt=alt, loading="lazy")


def boxed_picture(uri: str, alt: str, size: tuple[int, int], boxes: Iterable[Box]) -> Markup:
    """A picture with boxes drawn over it; ``size`` is the (width, height) that the boxes refer to."""
    rectangles = (tag("rect", x=b.left, y=b.top, width=b.width, height=b.height) for b in boxes)
    view = f"0 0 {size[0]} {size[1]}"
    over = tag("svg", *rectangles, viewBox=view, preserveAspectRatio="none", aria_hidden="true")
    return tag("div", picture(uri, alt), over, class_="boxed")


def card(*content: Child, head: Child = None) -> Markup:
    """A framed group, ``head`` (a picture, say) on top."""
    return tag("article", head and tag("div", head, class_="head"), tag("div", *content, class_="text"))


def grid(items: Iterable[Child], *, across: int = 4) -> Markup:
    """Columns, at most 4, 3 or 2 ``across`` a full page and fewer where the page is narrow."""
    return tag("div", *items, class_={2: "grid wide", 3: "grid third"}.get(across, "grid"))


# --- charts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A named line of (x, y) points, in order of x."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value with its interval, of one model, say."""

    label: str
    value: float
    low: float
    high: float


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if high <= low:
        return [low]
    exponent = math.floor(math.log10((high - low) / count))
    step = next(s for s in (1, 2, 5, 10) if (high - low) / (s * 10.0**exponent) <= count)
    size = step * 10.0**exponent
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [round(i * size, max(0, -exponent)) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high], with 2 and 5 between them where there is room for them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wanted = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [m * 10.0**e for e in decades for m in wanted]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)] or [low]


def number(value: float) -> str:
    """Short and unambiguous: 12,000, 0.25, 3e-05."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2g}"
    text = f"{value:,.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\u2212")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / ((high - low) or 1)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    log_y: bool = False,
    smooth: int = 1,
) -> Markup:
    """Curves over a common x; ``smooth`` points are averaged into the bold line, the raw one stays behind it.

    Values that cannot be drawn (not finite; not positive if ``log_y``) leave a gap and are counted below the
    chart. Long series are thinned to the extremes of each bucket, so that no spike disappears.
    """
    drawn = [[p for p in s.points if _drawable(p, log_y)] for s in series]
    lost = sum(len(s.points) for s in series) - sum(map(len, drawn))
    labels = [s.label for s in series]
    caption = tag("figcaption", tag("b", title), _legend(labels) if any(labels) else None)
    kind = "chart" if len(series) > 1 else "chart single"
    note = (
        tag("p", f"{lost} values cannot be drawn (not finite, or not positive).", class_="note")
        if lost
        else None
    )
    if not any(drawn):
        return tag("figure", caption, tag("p", "No values to draw.", class_="note"), note, class_=kind)
    x, y = _axes([p for points in drawn for p in points], log_y)
    lines = [line for i, points in enumerate(drawn) for line in _curves(points, i, x, y, smooth)]
    svg = tag(
        "svg",
        tag("title", f"{title}: {y_label} by {x_label}" if y_label else title),
        *_frame(x, y, x_label, y_label),
        *lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
    )
    return tag("figure", caption, svg, note, class_=kind)


_WIDTH, _HEIGHT = 560, 270


def _drawable(point: tuple[float, float], log_y: bool) -> bool:
    return all(map(math.isfinite, point)) and (point[1] > 0 or not log_y)


def _axes(points: Sequence[tuple[float, float]], log_y: bool) -> tuple[_Axis, _Axis]:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    if log_y:
        low, high = low / 1.15, high * 1.15
    else:
        margin = (high - low or abs(high) or 1) * 0.06
        low, high = (0.0 if 0 <= low < 0.4 * high else low - margin), high + margin
    x = _Axis(low=min(xs), high=max(xs), start=52, end=_WIDTH - 14)
    return x, _Axis(low=low, high=high, start=_HEIGHT - 40, end=16, log=log_y)


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> Iterator[Markup]:
    for value in y.ticks():
        yield tag("line", x1=x.start, x2=x.end, y1=y.at(value), y2=y.at(value), class_="rule")
        yield tag("text", number(value), x=x.start - 8, y=y.at(value) + 4, text_anchor="end")
    for value in x.ticks():
        yield tag("text", number(value), x=x.at(value), y=y.start + 17, text_anchor="middle")
    yield tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis")
    yield tag("text", x_label, x=x.end, y=_HEIGHT - 6, text_anchor="end", class_="name")
    yield tag("text", y_label, x=2, y=10, class_="name")


def _curves(
    points: Sequence[tuple[float, float]], index: int, x: _Axis, y: _Axis, smooth: int
) -> Iterator[Markup]:
    if not points:
        return
    if smooth > 1:
        yield _path(points, f"s{index % _COLOURS} raw", x, y)
    yield _path(_running_mean(points, smooth), f"s{index % _COLOURS} line", x, y)


def _path(points: Sequence[tuple[float, float]], kind: str, x: _Axis, y: _Axis) -> Markup:
    at = [(x.at(px), y.at(py)) for px, py in _thinned(points)]
    if len(at) == 1:
        return tag("circle", cx=at[0][0], cy=at[0][1], r=3, class_=kind.replace(" line", " dot"))
    return tag("polyline", points=" ".join(f"{px:g},{py:g}" for px, py in at), class_=kind)


def _running_mean(points: Sequence[tuple[float, float]], width: int) -> Sequence[tuple[float, float]]:
    """Centred; the window shrinks towards both ends, so that the curve spans the same x."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    result: list[tuple[float, float]] = []
    for i, (at, _) in enumerate(points):
        reach = min(width // 2, i, len(points) - 1 - i)
        result.append((at, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)))
    return result


def _thinned(points: Sequence[tuple[float, float]], limit: int = 800) -> list[tuple[float, float]]:
    if len(points) <= limit:
        return list(points)
    size = math.ceil(2 * len(points) / limit)
    buckets = (points[i : i + size] for i in range(0, len(points), size))
    return [p for b in buckets for p in sorted({min(b, key=_height), max(b, key=_height)})]


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _legend(labels: Sequence[str]) -> Markup:
    swatches = (
        tag("svg", tag("circle", cx=5, cy=5, r=5, class_=_dot(i)), width=10, height=10) for i in range(99)
    )
    return tag(
        "span", *(tag("span", s, label) for s, label in zip(swatches, labels, strict=False)), class_="legend"
    )


def _dot(index: int) -> str:
    return f"s{index % _COLOURS} dot"


def interval_chart(
    marks: Sequence[Mark],
    *,
    limits: tuple[float, float],
    title: str = "",
    show: Callable[[float], str] = number,
) -> Markup:
    """One row per mark on a common axis over ``limits``: a dot at the value, a bar over its interval.

    Raises :class:`DataError` if a value is not finite or lies outside the limits.
    """
    low, high = limits
    for mark in marks:
        if not all(math.isfinite(v) and low <= v <= high for v in (mark.low, mark.value, mark.high)):
            raise DataError(f"{mark} has a value that does not lie between the limits {low:g} and {high:g}")

    def at(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1):.2f}%"

    rows: list[Child] = []
    for i, mark in enumerate(marks):
        span = tag("line", x1=at(mark.low), x2=at(mark.high), y1=12, y2=12, class_=f"s{i % _COLOURS} span")
        dot = tag("circle", cx=at(mark.value), cy=12, r=5, class_=_dot(i))
        base = tag("line", x1=0, x2="100%", y1=12, y2=12, class_="rule")
        name = f"{mark.label}: {show(mark.value)}, interval {show(mark.low)} to {show(mark.high)}"
        strip = tag("svg", tag("title", name), base, span, dot, role="img")
        rows += [tag("span", mark.label), strip, tag("b", show(mark.value))]
    ticks = [tag("text", show(v), x=at(v), y=12, text_anchor="middle") for v in nice_ticks(low, high, 2)]
    rows += [tag("span"), tag("svg", *ticks, aria_hidden="true"), tag("span")]
    caption = tag("figcaption", tag("b", title)) if title else None
    return tag("figure", caption, tag("div", *rows, class_="strips"), class_="chart")


def bars(
    items: Sequence[tuple[str, float]], *, title: str = "", show: Callable[[float], str] = number
) -> Markup:
    """Horizontal bars from zero, one per (label, value).

    Raises :class:`DataError` if a value is negative or not finite.
    """
    for label, value in items:
        if not (math.isfinite(value) and value >= 0):
            raise DataError(f"the bar {label!r} has the value {value}; it must be finite and at least 0")
    most = max((value for _, value in items), default=0) or 1
    rows: list[Child] = []
    for label, value in items:
        bar = tag("rect", x=0, y=5, height=14, width=f"{100 * value / most:.2f}%", rx=2, class_="bar")
        rows += [tag("span", label), tag("svg", bar, aria_hidden="true"), tag("b", show(value))]
    caption = tag("figcaption", tag("b", title)) if title else None
    return tag("figure", caption, tag("div", *rows, class_="strips"), class_="chart")
