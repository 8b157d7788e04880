"""What a scene shows in each patch of a vision tower: the truth for dense supervision.

A patch has two half-cells, left and right, because narrow letters are thinner than a patch. Each holds the
character whose middle falls into it; where two would share one, the later moves on to the next free half-cell
of its row, so that reading the cells in order always gives the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llavar.render.scene import Colour, Scene, ShapeKind, TextLine

CHARACTERS = "".join(chr(code) for code in range(32, 127))
BLANK = 0
"""Class of a half-cell without a character; character ``CHARACTERS[i]`` is class ``i + 1``."""

CLASSES = len(CHARACTERS) + 1
COLOURS = tuple(Colour)
SHAPES = ("none", *(kind.value for kind in ShapeKind))


def widths(side: int) -> tuple[int, ...]:
    """How many classes each of the six numbers of a cell has (see :meth:`Grid.cells`)."""
    return (CLASSES, CLASSES, len(COLOURS), len(SHAPES), side, side)


@dataclass(frozen=True, slots=True)
class Grid:
    """Classes of every patch, int64. ``chars``: (side, side, 2); ``colour`` and ``shape``: (side, side)."""

    chars: np.ndarray
    colour: np.ndarray
    shape: np.ndarray

    def cells(self) -> np.ndarray:
        """int64 (side, side, 6): both characters, colour, ornament, and the patch's own row and column."""
        rows, columns = np.indices(self.colour.shape)
        return np.concatenate([self.chars, np.stack([self.colour, self.shape, rows, columns], -1)], -1)

    def text(self) -> str:
        """Every row that holds characters, from top to bottom."""
        rows = ("".join(CHARACTERS[c - 1] for c in row.ravel() if c) for row in self.chars)
        return "\n".join(row for row in rows if row)


def grid(scene: Scene, side: int) -> Grid:
    """The truth of ``scene`` for a tower of ``side`` x ``side`` patches."""
    chars = np.zeros((side, side * 2), np.int64)
    for line in scene.lines:
        _write(chars, line, side)
    colour = np.full((side, side), COLOURS.index(scene.ground), np.int64)
    shape = np.zeros((side, side), np.int64)
    for item in scene.shapes:
        rows = slice(_cell(item.box.top, side), _cell(item.box.bottom, side) + 1)
        columns = slice(_cell(item.box.left, side), _cell(item.box.right, side) + 1)
        colour[rows, columns] = COLOURS.index(item.colour)
        shape[rows, columns] = SHAPES.index(item.kind.value)
    return Grid(chars.reshape(side, side, 2), colour, shape)


def _cell(at: float, side: int) -> int:
    """Index of the cell at a share ``at`` of the picture, kept inside."""
    return min(max(int(at * side), 0), side - 1)


def _write(chars: np.ndarray, line: TextLine, side: int) -> None:
    row = chars[_cell(line.middle, side)]
    place = -1
    for glyph in line.glyphs():
        place = max(_cell(glyph.x, 2 * side), place + 1)
        if place >= row.size:
            return  # more characters than half-cells: cannot happen at the sizes that layouts choose
        code = ord(glyph.char) - 31
        row[place] = code if 0 < code < CLASSES else ord("?") - 31
