from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar import html
from llavar.errors import DataError
from llavar.records import Box

PIXEL = "data:image/png;base64,iVBORw0KGgo="
HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "' onmouseover='x",
            "</style></title><b>",
            "-->]]>",
            "&lt;",
            "\ud800\x00\x0b",
            "</svg><script>",
        ]
    ),
)


class Reader(HTMLParser):
    """Collects elements, attributes and text, and checks that elements are closed in order."""

    EMPTY = frozenset({"meta", "img", "br", "col"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)

    def classes(self) -> set[str]:
        return {name for _, attributes in self.tags for name in (attributes.get("class") or "").split()}


def everything(text: str) -> str:
    """A page with ``text`` in every place where text can go."""
    return html.page(
        text,
        html.section(text, html.paragraph(text), intro=text),
        html.bullets([text]),
        html.quote(text),
        html.verbatim(text),
        html.heading(text),
        html.badge(text, good=True),
        html.details(text, text, opened=True),
        html.facts([(text, text)]),
        html.rows([(text, text)]),
        html.tile(text, text, text),
        html.table([text], [[text]], caption=text),
        html.grid([html.card(text, head=html.picture(PIXEL, text))]),
        html.boxed_picture(PIXEL, text, (3, 4), [Box(left=0, top=0, right=1, bottom=2)]),
        html.line_chart([html.Series(label=text, points=((0, 1), (1, 2)))], title=text, y_label=text),
        html.interval_chart([html.Mark(label=text, value=0.5, low=0.4, high=0.6)], title=text, limits=(0, 1)),
        html.bars([(text, 1.0)], title=text),
        lead=text,
        footer=text,
    )


PLAIN = Reader(everything("plain"))


@settings(deadline=None, max_examples=60)
@given(HOSTILE)
def test_text_never_becomes_structure(text: str) -> None:
    """Whatever the text, the page has the same elements with the same attributes."""
    text = f"x{text}"  # parts with nothing in them are left out, which is another matter
    found = [(name, sorted(attributes)) for name, attributes in Reader(everything(text)).tags]
    assert found == [(name, sorted(attributes)) for name, attributes in PLAIN.tags]


@settings(deadline=None, max_examples=60)
@given(HOSTILE)
def test_every_page_can_be_written_and_reads_back(text: str) -> None:
    read = Reader(everything(text).encode("utf-8").decode("utf-8"))
    clean = str(html.escape(text))
    assert "".join(Reader(f"<p>{clean}</p>").text) in "".join(read.text)


def test_a_page_requests_nothing_and_runs_nothing() -> None:
    page = everything("plain")
    assert not {"script", "link", "iframe", "object", "form"} & {name for name, _ in PLAIN.tags}
    assert not any(key.startswith("on") or key == "href" for _, keys in PLAIN.tags for key in keys)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    policy = next(keys["content"] for _, keys in PLAIN.tags if "http-equiv" in keys)
    assert policy is not None
    assert "default-src 'none'" in policy


def test_the_page_has_both_colour_schemes_and_prints() -> None:
    page = html.page("t")
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert page.startswith("<!doctype html>")


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.org/a.png",
        "javascript:alert(1)",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,AAAA" onerror="x',
        "",
    ],
)
def test_only_inline_pictures(uri: str) -> None:
    with pytest.raises(DataError, match="inline picture"):
        html.picture(uri, "x")


def test_escape() -> None:
    assert html.escape("<a href='x'>&") == "&lt;a href=&#x27;x&#x27;&gt;&amp;"
    assert html.escape(html.Markup("<b>")) == "<b>"
    assert html.escape(None) == ""
    assert html.escape(0) == "0"
    assert html.escape("a\x00\ud800b\n") == "a\ufffd\ufffdb\n"
    assert not isinstance(html.Markup("<b>") + "<i>", html.Markup)


def test_attributes() -> None:
    made = html.tag("div", "x", class_="a", stroke_width=2, viewBox="0 0 1 1", id=None)
    assert made == '<div class="a" stroke-width="2" viewBox="0 0 1 1">x</div>'


def test_empty_answers_are_visible() -> None:
    assert "(nothing)" in html.quote(" \n")
    assert "(nothing)" not in html.quote("x")


def test_numeric_columns_are_marked() -> None:
    read = Reader(html.table(["a", "b"], [["x", 1], ["y", 2]], numeric=(1,)))
    assert [keys.get("class") for name, keys in read.tags if name == "td"] == [None, "n", None, "n"]


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    high = low + width
    ticks = html.nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert 1 <= len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert all(low - slack <= tick <= high + slack for tick in ticks)


def test_ticks_examples() -> None:
    assert html.nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert html.nice_ticks(0, 200, 2) == [0, 100, 200]
    assert html.nice_ticks(3, 3) == [3]
    assert html.log_ticks(0.5, 20) == [0.5, 1, 2, 5, 10, 20]
    assert html.log_ticks(1e-6, 1) == pytest.approx([10.0**e for e in range(-6, 1)])
    assert html.log_ticks(1.1, 1.3) == [1.1]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12000, "12,000"), (0.25, "0.25"), (3e-5, "3e-05"), (-1.5, "\u22121.5")]
)
def test_numbers(value: float, text: str) -> None:
    assert html.number(value) == text


def series(*values: float, label: str = "loss") -> html.Series:
    return html.Series(label=label, points=tuple((float(i), v) for i, v in enumerate(values)))


def coordinates(chart: str) -> list[list[tuple[float, float]]]:
    lines = [keys["points"] or "" for name, keys in Reader(chart).tags if name == "polyline"]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in line.split())] for line in lines]


def test_a_curve_runs_from_left_to_right_and_down_with_the_loss() -> None:
    ((first, second, third),) = coordinates(html.line_chart([series(3, 2, 1)], title="t"))
    assert first[0] < second[0] < third[0]
    assert first[1] < second[1] < third[1]
    assert second[1] == pytest.approx((first[1] + third[1]) / 2, abs=0.2)


def test_log_scale_spaces_factors_equally() -> None:
    ((a, b, c),) = coordinates(html.line_chart([series(100, 10, 1)], title="t", log_y=True))
    assert b[1] - a[1] == pytest.approx(c[1] - b[1], abs=0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_cannot_be_drawn_are_counted(bad: float) -> None:
    chart = html.line_chart([series(3, bad, 1)], title="t")
    assert "1 values cannot be drawn" in chart
    assert "nan" not in chart
    assert "inf" not in chart.replace("infinite", "").replace("finite", "")
    assert len(coordinates(chart)[0]) == 2


def test_a_chart_without_values_says_so() -> None:
    assert "No values to draw" in html.line_chart([series(), series(math.nan)], title="t")
    assert "No values to draw" in html.line_chart([], title="t")
    assert "2 values cannot be drawn" in html.line_chart([series(0, -1, 1)], title="t", log_y=True)


def test_flat_and_single_point_curves() -> None:
    assert len(coordinates(html.line_chart([series(2, 2, 2)], title="t"))[0]) == 3
    assert Reader(html.line_chart([series(2)], title="t")).count("circle") == 2


def test_a_long_series_keeps_its_spike() -> None:
    values = [1.0] * 20_000
    values[12_345] = 50.0
    (points,) = coordinates(html.line_chart([series(*values)], title="t"))
    assert len(points) <= 800
    assert min(y for _, y in points) < 60


def test_smoothing_keeps_the_raw_line_and_the_ends() -> None:
    raw, smooth = coordinates(html.line_chart([series(0, 4, 0, 4, 0)], title="t", smooth=3))
    assert raw[0] == smooth[0]
    assert raw[-1] == smooth[-1]
    assert max(y for _, y in smooth) - min(y for _, y in smooth) <= max(y for _, y in raw) - min(
        y for _, y in raw
    )


def test_each_series_has_its_colour_and_place_in_the_legend() -> None:
    chart = html.line_chart([series(1, 2, label="without"), series(2, 1, label="with")], title="Stage 1")
    read = Reader(chart)
    assert {"s0", "s1"} <= read.classes()
    text = "".join(read.text)
    assert text.index("without") < text.index("with", text.index("without") + 7)
    assert ("svg", "img") in [(name, keys.get("role")) for name, keys in read.tags]
    assert "Stage 1" in text


def test_interval_chart_places_values() -> None:
    chart = html.interval_chart([html.Mark(label="with", value=50, low=25, high=100)], limits=(0, 200))
    read = Reader(chart)
    span = next(keys for _, keys in read.tags if "span" in (keys.get("class") or "").split())
    assert (span["x1"], span["x2"]) == ("12.50%", "50.00%")
    assert "with: 50, interval 25 to 100" in "".join(read.text)


@pytest.mark.parametrize("value", [math.nan, -1, 201])
def test_interval_chart_refuses_what_lies_outside(value: float) -> None:
    with pytest.raises(DataError, match="0 and 200"):
        html.interval_chart([html.Mark(label="m", value=value, low=0, high=1)], limits=(0, 200))


def test_bars_are_relative_to_the_longest() -> None:
    read = Reader(html.bars([("a", 1.0), ("b", 4.0), ("c", 0.0)]))
    assert [keys["width"] for name, keys in read.tags if name == "rect"] == ["25.00%", "100.00%", "0.00%"]
    assert Reader(html.bars([("a", 0.0)])).count("rect") == 1
    with pytest.raises(DataError, match="'a' has the value nan"):
        html.bars([("a", math.nan)])
