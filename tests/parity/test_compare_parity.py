"""The released answers on MME's OCR questions, LLaVA's against LLaVAR's: recorded counts and p."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavar.cli import main


def test_seven_up_three_down(shared_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, page = shared_data / "llavar" / "MME", tmp_path / "page.html"
    files = [str(folder / "OCR_llava.txt"), str(folder / "OCR_llavar.txt")]
    assert main(["compare", *files, "--json", "--out", str(page)]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"].values()
    assert (task["up"], task["down"]) == (7, 3)
    assert round(task["mcnemar"], 3) == 0.344
    assert (task["a"]["score"], task["b"]["score"], task["difference"]) == (50.0, 80.0, 30.0)
    assert "OCR_llavar.txt against OCR_llava.txt" in page.read_text()


def test_a_file_against_itself(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(shared_data / "llavar" / "MultimodalOCR" / "textVQA.json")
    assert main(["compare", file, file, "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"].values()
    assert (task["difference"], task["p"], task["up"], task["down"]) == (0, 1, 0, 0)
    assert round(task["a"]["score"], 4) == 0.4854
