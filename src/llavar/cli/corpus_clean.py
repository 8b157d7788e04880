"""``llavar corpus clean``: what a corpus no longer needs goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.corpus.cleaning import Cleaned

_WORDS = {
    "unfinished": "files that a killed run left behind",
    "stages": "stages that the last recipe does not have",
    "fetched": "downloads in fetched/",
    "rejected": "pictures in images/ that no row uses",
}
_OPTION = {
    "fetched": "They can be had again only while their URLs answer; --fetched removes them",
    "rejected": "Other settings may want them; --rejected removes them",
}
"""What goes only where it is asked for."""
_AFTERWARDS = {
    "fetched": "Pictures that a changed recipe has opened anew are fetched again, and left out if their URL "
    "has died by then",
    "rejected": "Those that a changed recipe wants are opened again, and left out if they are others by then",
}


def add(parts: Commands) -> None:
    parser = parts.add_parser(
        "clean",
        help="remove what a corpus no longer needs",
        description="Remove files that killed runs left behind, and stages that the last recipe does not "
        "have; with --fetched also the pictures as they came from the network, with --rejected those of rows "
        "that were left out. Products, their pictures, provenance and all commands on them stay.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument(
        "--fetched",
        action="store_true",
        help="remove raw downloads as well: nobody needs them unless pictures are opened anew, and then "
        "they are fetched again, which fails where a URL has died",
    )
    parser.add_argument(
        "--rejected",
        action="store_true",
        help="remove opened pictures that no row uses as well: where a changed recipe wants them they are "
        "opened again",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what there is, and remove nothing")
    parser.add_argument("--json", action="store_true", help="print what was removed as one object")
    parser.set_defaults(command=_clean)


def _clean(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from llavar.corpus.cleaning import clean

    fetched, rejected = arguments.fetched, arguments.rejected
    done = clean(arguments.corpus, fetched=fetched, rejected=rejected, dry=arguments.dry_run)
    if arguments.json:
        freed = sum(one.bytes for one in done if one.removed)
        print(json.dumps({"freed": freed, "found": [asdict(one) for one in done]}))
        return 0
    for one in done:
        print(_said(one))
    freed = sum(one.bytes for one in done if one.removed)
    print(f"{_size(freed)} freed")
    return 0


def _said(one: Cleaned) -> str:
    kind = one.kind.value
    if not one.files:
        return f"{_WORDS[one.kind.value]}: none"
    what = f"{_WORDS[one.kind.value]}: {one.files} of {_size(one.bytes)}"
    if not one.removed:
        return f"{what}, there{_after(_OPTION.get(kind))}"
    return f"{what}, removed{_after(_AFTERWARDS.get(kind))}"


def _after(sentence: str | None) -> str:
    return f". {sentence}" if sentence else ""


def _size(count: int) -> str:
    """Bytes for people."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:,.1f} {unit}"
    return f"{count} bytes"
