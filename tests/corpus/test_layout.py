from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.corpus.layout import (
    DropReason,
    LayoutSettings,
    Paragraphs,
    arrange,
    merge_paragraphs,
    merge_rows,
    reading_order,
    rows,
    text_height,
)
from llavar.errors import ConfigError
from llavar.records import Box, Line, Reading


def line(text: str, left: float, top: float, width: float, height: float, confidence: float = 1.0) -> Line:
    box = Box(left=left, top=top, right=left + width, bottom=top + height)
    return Line(text=text, box=box, confidence=confidence)


def texts(lines: tuple[Line, ...]) -> list[str]:
    return [line.text for line in lines]


RECEIPT = (
    line("3.50", 300, 102, 60, 20),
    line("Total", 10, 160, 60, 20),
    line("Coffee", 10, 100, 90, 22),
    line("CAFE", 100, 10, 200, 60),
    line("3.50", 300, 158, 60, 20),
)

coordinate = st.floats(0, 500, allow_nan=False)
boxes = st.builds(
    line, st.text("abc ", max_size=5), coordinate, coordinate, st.floats(0, 300), st.floats(0, 80)
)


def test_rows_go_top_to_bottom_and_left_to_right() -> None:
    assert texts(reading_order(RECEIPT)) == ["CAFE", "Coffee", "3.50", "Total", "3.50"]
    assert texts(merge_rows(RECEIPT)) == ["CAFE", "Coffee 3.50", "Total 3.50"]


def test_half_of_the_smaller_height_decides() -> None:
    assert len(rows((line("a", 0, 0, 10, 20), line("b", 20, 10, 10, 20)))) == 2
    assert len(rows((line("a", 0, 0, 10, 20), line("b", 20, 9, 10, 20)))) == 1


def test_a_tall_box_does_not_tie_two_rows_together() -> None:
    tall = line("50%", 0, 0, 60, 60)
    found = rows((line("below", 70, 35, 50, 20), tall, line("above", 70, 5, 50, 20)))
    assert len(found) == 2
    assert "above" not in [
        member.text for row in found if any(m.text == "below" for m in row) for member in row
    ]


def test_a_merged_row_is_as_sure_as_its_least_sure_part() -> None:
    (row,) = merge_rows((line(" two\twords ", 50, 0, 40, 10, 0.7), line("one", 0, 0, 40, 12, 0.9)))
    assert row == Line(text="one two words", box=Box(left=0, top=0, right=90, bottom=12), confidence=0.7)


@settings(deadline=None)
@given(st.lists(boxes, max_size=12))
def test_order_loses_and_doubles_nothing_and_does_not_depend_on_the_input_order(found: list[Line]) -> None:
    def by_value(lines: list[Line]) -> list[str]:
        return sorted(map(repr, lines))

    assert by_value(list(reading_order(found))) == by_value(found)
    letters = sorted("".join(text.text for text in found).replace(" ", ""))
    for merge in (merge_rows, merge_paragraphs):
        assert sorted("".join(texts(merge(found))).replace(" ", "")) == letters


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), unique=True, max_size=10), st.randoms())
def test_order_is_that_of_a_grid(cells: list[tuple[int, int]], rng: object) -> None:
    grid = [line(f"{row}{column}", column * 100, row * 50, 80, 30) for row, column in cells]
    rng.shuffle(grid)  # type: ignore[attr-defined]
    assert texts(reading_order(grid)) == sorted(f"{row}{column}" for row, column in cells)


def test_paragraphs_join_what_is_near_and_leave_what_is_far() -> None:
    lines = (
        line("first", 0, 0, 100, 20),
        line("far away", 0, 300, 100, 20),
        line("second", 0, 25, 100, 20),
        line("third", 0, 50, 100, 20),
    )
    assert texts(merge_paragraphs(lines)) == ["first second third", "far away"]


def test_paragraphs_widen_by_one_height_across_and_half_a_height_down() -> None:
    base = line("a", 0, 0, 100, 20)
    assert len(merge_paragraphs((base, line("b", 120, 0, 50, 20)))) == 1
    assert len(merge_paragraphs((base, line("b", 121, 0, 50, 20)))) == 2
    assert len(merge_paragraphs((base, line("b", 0, 30, 50, 20)))) == 1
    assert len(merge_paragraphs((base, line("b", 0, 31, 50, 20)))) == 2
    assert len(merge_paragraphs((base, line("b", 0, 31, 50, 20)), y_ths=0.6)) == 1


def test_paragraphs_ask_for_an_edge_within_the_hull_as_the_original_does() -> None:
    """A box that reaches out on both sides is not taken in, though it lies right below."""
    assert len(merge_paragraphs((line("a", 200, 0, 50, 20), line("wide", 0, 25, 500, 20)))) == 2


def test_paragraphs_swap_lines_of_a_centred_poster_as_the_paper_does() -> None:
    """Within 0.4 mean heights of the highest centre, the leftmost box comes first, whatever its row."""
    lines = (line("upper", 60, 0, 80, 40), line("lower left", 0, 12, 50, 40))
    assert texts(merge_paragraphs(lines)) == ["lower left upper"]


def easyocr_paragraphs(found: list[tuple[str, float, float, float, float]]) -> list[str]:
    """EasyOCR's rule for paragraphs, written anew from its description; boxes are (text, x0, x1, y0, y1)."""
    group_of: dict[int, int] = {}
    current = 0
    while len(group_of) < len(found):
        members = [found[place] for place in group_of if group_of[place] == current]
        free = [place for place in range(len(found)) if place not in group_of]
        if not members:
            group_of[free[0]] = current
            continue
        mean = sum(y1 - y0 for *_, y0, y1 in members) / len(members)
        x0, x1 = min(m[1] for m in members) - mean, max(m[2] for m in members) + mean
        y0, y1 = min(m[3] for m in members) - 0.5 * mean, max(m[4] for m in members) + 0.5 * mean
        taken = None
        for place in free:
            _, left, right, top, bottom = found[place]
            level = x0 <= left <= x1 or x0 <= right <= x1
            if level and (y0 <= top <= y1 or y0 <= bottom <= y1):
                taken = place
                break
        if taken is None:
            current += 1
        else:
            group_of[taken] = current
    said: list[str] = []
    for number in range(current + 1):
        rest = [found[place] for place in sorted(group_of) if group_of[place] == number]
        mean = sum(y1 - y0 for *_, y0, y1 in rest) / len(rest)
        words: list[str] = []
        while rest:
            highest = min((y0 + y1) / 2 for *_, y0, y1 in rest)
            level = [one for one in rest if (one[3] + one[4]) / 2 < highest + 0.4 * mean]
            leftmost = min(one[1] for one in level)
            best = [one for one in level if one[1] == leftmost][-1]
            words.append(best[0])
            rest.remove(best)
        said.append(" ".join(words))
    return said


edges = st.integers(0, 14).map(lambda value: 5 * value)
"""On a grid, so that edges touch and places coincide."""


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(edges, edges, st.integers(1, 20), st.integers(1, 8)), min_size=1, max_size=10))
def test_paragraphs_are_those_of_easyocr(places: list[tuple[int, int, int, int]]) -> None:
    found = [
        (f"w{number}", float(left), float(left + 5 * width), float(top), float(top + 5 * height))
        for number, (left, top, width, height) in enumerate(places)
    ]
    lines = tuple(
        Line(text=text, box=Box(left=x0, top=y0, right=x1, bottom=y1)) for text, x0, x1, y0, y1 in found
    )
    assert texts(merge_paragraphs(lines)) == easyocr_paragraphs(found)


def test_of_boxes_that_begin_together_the_last_one_found_comes_first() -> None:
    found = [("a", 0.0, 50.0, 0.0, 20.0), ("b", 0.0, 50.0, 35.0, 55.0), ("c", 0.0, 60.0, 25.0, 65.0)]
    lines = tuple(line(text, x0, y0, x1 - x0, y1 - y0) for text, x0, x1, y0, y1 in found)
    assert texts(merge_paragraphs(lines)) == easyocr_paragraphs(found) == ["a c b"]


def test_boxes_without_height_do_not_hang() -> None:
    flat = [line(str(n), n, 5, 0, 0) for n in range(4)]
    assert sorted(" ".join(texts(merge_paragraphs(flat))).split()) == ["0", "1", "2", "3"]
    assert len(reading_order(flat)) == 4


def test_letters_that_stand_upright_are_as_high_as_their_box_is_wide() -> None:
    assert text_height(line("sideways", 0, 0, 12, 200)) == 12
    assert text_height(line("I", 0, 0, 4, 20)) == 20
    assert text_height(line("flat", 0, 0, 100, 20)) == 20


def test_arrange_drops_with_counts_and_reasons() -> None:
    lines = (
        line("unsure", 0, 100, 90, 40, 0.5),
        line("small print", 0, 200, 90, 20),
        line("BIG", 0, 0, 300, 60),
        line("edge", 0, 300, 90, 21),
    )
    reading = Reading(image="a.png", size=(1008, 700), lines=lines, engine="e")
    arranged = arrange(reading, LayoutSettings())
    assert texts(arranged.reading.lines) == ["BIG", "edge"]
    assert texts(arranged.dropped) == ["unsure", "small print"]
    assert [(reject.reason, reject.detail, reject.stage) for reject in arranged.rejects] == [
        (DropReason.LOW_CONFIDENCE, "1 of 4 lines under 0.8", "layout"),
        (DropReason.TOO_SMALL, "1 of 4 lines under 7 px at 336 px", "layout"),
    ]
    assert {reject.id for reject in arranged.rejects} == {"a.png"}


def test_arrange_merges_as_asked_and_takes_a_reading_without_lines() -> None:
    lines = (line("low", 0, 25, 90, 20), line("high", 0, 0, 90, 20), line("apart", 0, 200, 90, 20))
    reading = Reading(image="a", size=(400, 300), lines=lines, engine="e")
    assert texts(arrange(reading, LayoutSettings()).reading.lines) == ["high", "low", "apart"]
    merged = arrange(reading, LayoutSettings(paragraphs=Paragraphs.LLAVAR)).reading
    assert texts(merged.lines) == ["high low", "apart"]
    empty = arrange(Reading(image="a", size=(0, 0), lines=(), engine="e"), LayoutSettings())
    assert empty == (Reading(image="a", size=(0, 0), lines=(), engine="e"), (), ())


@pytest.mark.parametrize("wrong", [{"min_confidence": 1.1}, {"target_size": 0}, {"min_height": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        LayoutSettings(**wrong)  # type: ignore[arg-type]
