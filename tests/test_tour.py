"""docs/tour.ipynb does what it shows. Its cells are run here one after the other, without a kernel."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).resolve().parent.parent / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    document = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    return document["cells"]


def code_of(cells: list[dict[str, Any]]) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_it_holds_no_outputs_and_nothing_of_a_machine(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert not re.search(r"/(home|root|tmp|Users|work)/", TOUR.read_text(encoding="utf-8"))
    assert all(not line.startswith(("%", "!")) for text in code_of(cells) for line in text.splitlines())


def test_its_links_lead_somewhere(cells: list[dict[str, Any]]) -> None:
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((TOUR.parent / link).is_file() for link in links)


def test_it_runs_from_the_first_cell_to_the_last(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rapidocr")
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # it is looked up anew
    names: dict[str, Any] = {"__name__": "tour"}
    try:
        for number, text in enumerate(code_of(cells)):
            exec(compile(text, f"{TOUR.name}, code cell {number}", "exec"), names)
    finally:
        server = names.get("server")
        if isinstance(server, subprocess.Popen):
            server.kill()
            server.wait()
    assert len(names["losses"]) == 6
    assert names["served"] == names["reader"].ask(names["picture"], "What does the picture say?")
    assert list(tmp_path.glob("llavar-tour-*/eval/folder/result.json"))
