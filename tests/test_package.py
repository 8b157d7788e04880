"""What ``import llavar`` brings, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import llavar

HELP = "import llavar.cli, contextlib\nwith contextlib.suppress(SystemExit): llavar.cli.main({})"
HEAVY = ("torch", "numpy", "transformers", "PIL", "rapidocr")


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has imported after ``code``."""
    report = f"{code}\nimport sys; print('\\n' + ' '.join(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import llavar",
        "import llavar.cli",
        HELP.format("['--help']"),
        HELP.format("['ask', '--help']"),
        HELP.format("['demo', '--help']"),
    ],
)
def test_nothing_heavy_is_imported(code: str):
    assert loaded_by(code) == set()


def test_the_probe_would_notice_a_heavy_import():
    assert loaded_by("import llavar, numpy") == {"numpy"}


def test_the_version_is_the_installed_one():
    assert llavar.__version__ == metadata.version("llavar")


def test_the_reader_is_found_when_it_is_asked_for():
    from llavar.study.reader import Reader

    assert llavar.Reader is Reader
    assert set(llavar.__all__) <= {*dir(llavar), "Reader"}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Writer'"):
        _ = llavar.Writer  # type: ignore[attr-defined]


def test_load_names_a_model_that_is_not_there():
    with pytest.raises(llavar.LlavarError, match="no model folder 'absent'"):
        llavar.load("absent")
