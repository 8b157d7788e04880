"""``llavar doctor`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavar import cli
from llavar.study.nano import weights

NANO = weights.folder("nano")


def test_a_sound_folder_exits_with_0(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", str(NANO)]) == 0
    shown = capsys.readouterr().out
    assert f"{NANO}: Llava in the stock layout" in shown
    assert "ok       torch:" in shown
    assert shown.endswith("No problems.\n")


def test_a_problem_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["doctor", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "problem  weights:" in shown
    assert "         -> " in shown
    assert shown.endswith("\n1 problem.\n")


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert cli.main(["doctor", str(tmp_path / "model.bin"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == 1
    assert "Git LFS pointer" in told["findings"][-1]["text"]
    assert told["findings"][-1]["remedy"] == "run 'git lfs pull'"


def test_without_a_path_it_looks_at_the_machine(capsys: pytest.CaptureFixture[str]):
    status = cli.main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == int(told["problems"] > 0)
    assert told["path"] is None


def test_nothing_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["doctor", str(tmp_path / "none")]) == 2
    assert "there is nothing at" in capsys.readouterr().err
