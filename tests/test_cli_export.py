"""``llavar convert export`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavar.cli import main
from llavar.study.nano import weights

NANO = str(weights.folder("nano"))


def test_the_object_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["convert", "export", NANO, "--to", "vllm", "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["folder"] == str(out)
    assert document["files"]["serve.sh"]["bytes"] == (out / "serve.sh").stat().st_size
    assert document["pushed"] is None
    assert document["figures"]["prompt_tokens"] > 144
    assert "note: llavar drops the transparency" in told.err


def test_the_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    arguments = ["--to", "hub", "--out", str(out), "--license", "mit", "--max-shard-bytes", "5MB"]
    assert main(["convert", "export", NANO, *arguments]) == 0
    told = capsys.readouterr().out
    listed = (out / "checksums.sha256").read_text().splitlines()
    assert len(listed) > 10
    for line in listed:
        digest, name = line.split("  ")
        assert any(row.startswith(digest) and row.endswith(name) for row in told.splitlines())
    assert "Loaded again by transformers" in told
    assert told.endswith(f"next: hf upload OWNER/NAME {out}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--to", "vllm"], "no model folder 'nothing'"),
        ([NANO, "--to", "vllm", "--outtype", "f16"], "--outtype means nothing for --to vllm"),
        ([NANO, "--to", "hub", "--private"], "say --push OWNER/NAME too"),
        ([NANO, "--to", "hub", "--push", "nano"], "write it as OWNER/NAME"),
        ([NANO, "--to", "ollama"], "invalid choice: 'ollama'"),
        ([NANO], "--to"),
        ([NANO, "--to", "gguf", "--outtype", "q4"], "invalid choice: 'q4'"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    try:
        status = main(["convert", "export", *arguments, "--out", str(tmp_path / "out")])
    except SystemExit as error:
        status = int(str(error.code))
    told = capsys.readouterr()
    assert status == 2
    assert message in told.err
    assert "Traceback" not in told.err
    assert not (tmp_path / "out").exists()
