"""``llavar doctor``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.study.doctor import Diagnosis, Finding


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="find what is wrong with this machine or with a checkpoint, and say what to do",
        description="Look at Python, torch, the libraries and the hardware; and, with PATH, at a "
        "checkpoint: its kind, files, shapes, tokenizer and contradictions. Changes and fetches nothing. The "
        "exit status is 1 if there is a problem.",
    )
    parser.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", help="a model folder, or a file of weights"
    )
    parser.add_argument("--json", action="store_true", help="print one object with every finding")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from llavar.study.doctor import diagnose

    found = diagnose(arguments.path)
    if arguments.json:
        print(json.dumps(found.document(), ensure_ascii=False))
    else:
        _show(found)
    return int(found.problems > 0)


def _show(found: Diagnosis) -> None:
    for finding in found.environment:
        _line(finding)
    if found.path is not None:
        print(f"\n{found.path}: {found.kind}")
        for finding in found.checkpoint:
            _line(finding)
    plural = "" if found.problems == 1 else "s"
    print(f"\n{found.problems} problem{plural}." if found.problems else "\nNo problems.")


def _line(finding: Finding) -> None:
    print(f"{finding.level:<8} {finding.subject}: {finding.text}")
    if finding.remedy:
        print(f"{'':<8} -> {finding.remedy}")
