"""The commands in the documents are commands that there are, down to their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from llavar import cli
from llavar.corpus.recipe import read_recipe
from llavar.evals import tasks
from llavar.recipes import catalogue

ROOT = Path(__file__).resolve().parent.parent
REPRODUCE = ROOT / "docs" / "reproduce.md"
CORPUS = ROOT / "docs" / "corpus.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPAN = re.compile(r"`llavar (corpus [a-z][^`]*)`")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:torchrun [^|]*? -m llavar|(?:\.venv/bin/)?llavar) (.+)$")
ABRIDGED = re.compile(r"\.\.\.|[|\[\]]")
"""A way of writing several commands as one, or a part of one."""


def commands(page: Path) -> Iterator[str]:
    """What stands behind ``llavar`` in the blocks of a page, without remarks, one line for each."""
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language:
            continue
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            found = COMMAND.match(re.sub(r"\s+# .*$", "", line.strip()))
            if found:
                yield found[1].strip()


def whole(page: Path) -> list[str]:
    return [command for command in commands(page) if not ABRIDGED.search(command)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in whole(page):
        try:
            cli._parsed(shlex.split(command))
        except SystemExit:
            pytest.fail(f"{page.name}: llavar {command}: {capsys.readouterr().err}")


def test_the_walk_abridges_nothing_and_goes_all_the_way() -> None:
    found = list(commands(REPRODUCE))
    assert found == whole(REPRODUCE)
    said = {" ".join(shlex.split(command)[:2]) for command in found}
    assert {"corpus run", "corpus check", "train llavar-13b-stage1", "train llavar-13b-stage2"} <= said
    assert {"eval http://127.0.0.1:8000/v1#llavar-13b", "judge run", "convert export"} <= said


def test_recipes_and_tasks_of_the_walk_are_known() -> None:
    parsed = [cli._parsed(shlex.split(command)) for command in commands(REPRODUCE)]
    trained = {arguments.what for arguments in parsed if hasattr(arguments, "what")}
    assert trained <= {recipe.name for recipe in catalogue.recipes()}
    asked = {task for arguments in parsed for task in getattr(arguments, "tasks", ())}
    assert asked
    for task in asked:
        tasks.get(task)


def test_recipes_of_corpora_in_the_walk_are_recipes(tmp_path: Path) -> None:
    blocks = [block for language, block in BLOCK.findall(REPRODUCE.read_text("utf-8")) if language == "yaml"]
    names = [block.partition("\n")[0].removeprefix("# ") for block in blocks]
    used = {
        word for command in commands(REPRODUCE) for word in shlex.split(command) if word.endswith(".yaml")
    }
    assert set(names) == used
    for name, block in zip(names, blocks, strict=True):
        (tmp_path / name).write_text(block, encoding="utf-8")
        read_recipe(tmp_path / name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_corpora_within_a_sentence_have_the_options_they_name(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for span in SPAN.findall(page.read_text(encoding="utf-8")):
        words = span.split()
        with pytest.raises(SystemExit) as ended:
            cli._parsed([*words[:2], "--help"])
        said = capsys.readouterr().out
        assert ended.value.code == 0, span
        for option in re.findall(r"(?<!\S)--[a-z0-9-]+", span):
            assert re.search(rf"(?<!\S){option}\b", said), f"{page.name}: llavar {span}"


def test_every_command_on_corpora_is_in_their_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli._parsed(["corpus", "--help"])
    there = set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    assert {"run", "status", "explain", "check", "clean"} <= there
    text = CORPUS.read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE))
    assert there <= table | set(re.findall(r"llavar corpus ([a-z]+)", text))


def test_recipes_in_the_document_on_corpora_are_recipes(tmp_path: Path) -> None:
    blocks = [block for language, block in BLOCK.findall(CORPUS.read_text("utf-8")) if language == "yaml"]
    assert len(blocks) > 5
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        given = "" if re.search(r"^source:", block, re.MULTILINE) else "source: {folder: pictures}\n"
        path.write_text(given + block, encoding="utf-8")
        read_recipe(path)


def test_what_the_walk_plans_is_what_the_plan_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = REPRODUCE.read_text(encoding="utf-8")
    plans = [command for command in commands(REPRODUCE) if "--plan" in command]
    assert len(plans) == 2
    for command in plans:
        assert cli.main(shlex.split(command)) == 0
        said = capsys.readouterr().out
        hours, gigabytes = (
            re.search(r"FLOPs, ([\d.]+ h) on 8", said),
            re.search(r"one GPU: ([\d.]+) GB", said),
        )
        assert hours
        assert gigabytes
        assert f"{hours[1]} on 8 H100 [plan]" in text
        assert f"{float(gigabytes[1]):.0f} GB" in text
        assert f"{hours[1]} [plan]" in text
