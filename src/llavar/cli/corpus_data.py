"""``llavar corpus check|remove|card|hashes``: data that is there, ours or anybody's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands, count

if TYPE_CHECKING:
    from llavar.corpus.item import Item
    from llavar.corpus.verify import Verified


def add(parts: Commands) -> None:
    _add_check(parts)
    _add_remove(parts)
    _add_card(parts)
    _add_hashes(parts)


def _add_check(parts: Commands) -> None:
    parser = parts.add_parser(
        "check",
        help="what is wrong with a data set in LLaVA's format, and where",
        description="Look at every row and picture of a data set (LLaVA's JSON, JSONL, Parquet, WebDataset "
        "tar); list what has to be mended. Ends with status 1 if something is wrong.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="DIR", help="the rows' pictures: a folder, tar or zip")
    parser.add_argument(
        "--expect",
        choices=("paper", "none"),
        default="none",
        help="row counts of the released files",
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="measure lengths in its tokens as well")
    parser.add_argument("--max-length", type=count, default=2048, metavar="N", help="tokens of a row (2048)")
    parser.add_argument("--image-tokens", type=count, default=576, metavar="N", help="of a picture (576)")
    parser.add_argument("--no-open", action="store_true", help="do not decode pictures")
    parser.add_argument("--workers", type=count, metavar="N", help="processes that open pictures")
    parser.add_argument("--out", type=Path, metavar="MEND.jsonl", help="all that was found, a line each")
    parser.add_argument("--json", action="store_true", help="print what was found as one object")
    parser.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> int:
    import json
    import os
    from dataclasses import asdict

    from llavar.corpus.verify import Expect, VerifySettings, verify

    settings = VerifySettings(
        images=arguments.images,
        open_images=not arguments.no_open,
        expect=Expect(arguments.expect),
        workers=arguments.workers or os.cpu_count() or 1,
        tokens=_counting(arguments.tokenizer),
        picture_tokens=arguments.image_tokens,
        max_length=arguments.max_length,
    )
    found = verify(arguments.file, settings, out=arguments.out)
    if arguments.json:
        print(json.dumps({"ok": found.ok, **asdict(found)}))
    else:
        _show(found, arguments.out)
    return 0 if found.ok else 1


def _counting(tokenizer: Path | None) -> Callable[[str], int] | None:
    """Counts the tokens of a text."""
    if tokenizer is None:
        return None
    from llavar.models.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    return lambda text: len(loaded.encode(text))


def _show(found: Verified, out: Path | None) -> None:
    opened = f"{found.opened:,} opened" if found.opened else "none opened"
    print(f"{found.file}: {found.rows:,} rows, {found.with_pictures:,} with pictures")
    print(f"{found.pictures:,} different pictures, {opened}")
    for name, length in found.lengths.items():
        print(
            f"  {name}: {length.mean:,} on average, median {length.median:,}, 95 % up to {length.p95:,}, "
            f"longest {length.longest:,}"
        )
    for title, counts in (("to be mended", found.faults), ("to be known", found.remarks)):
        for kind, many in sorted(counts.items(), key=lambda pair: -pair[1]):
            print(f"{title}: {many:,} x {kind}")
            for one in found.examples[kind]:
                print(f"    {one.id or '(file)'}: {one.detail}")
    if out is not None:
        print(f"The whole list is in {out}.")
    print("Nothing is wrong." if found.ok else "Something is wrong.")


# ---------------------------------------------------------------------------------------------- remove


def _add_remove(parts: Commands) -> None:
    parser = parts.add_parser(
        "remove",
        help="take pictures out of a corpus, everywhere and for good",
        description="Take pictures and all that was made of them out of a corpus; later runs do not bring "
        "them back. Only hashes are kept, in removed.jsonl. Copies left out as duplicates go as well.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument(
        "--sha256", nargs="+", action="extend", default=[], metavar="H", help="of files, as in names.jsonl"
    )
    parser.add_argument(
        "--url", nargs="+", action="extend", default=[], metavar="U", help="as it stands in the source"
    )
    parser.add_argument("--json", action="store_true", help="print what was removed as one object")
    parser.set_defaults(command=_remove)


def _remove(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from llavar.corpus.recipe import saved_recipe, teach_stage
    from llavar.corpus.removed import Wanted, remove, requests_of
    from llavar.corpus.teaching.stage import EndpointTeachStage

    root: Path = arguments.corpus
    wanted = Wanted(sha256=tuple(map(str.lower, arguments.sha256)), urls=tuple(arguments.url))
    teacher = teach_stage(saved_recipe(root), root.absolute())

    def asked(item: Item) -> list[str]:
        return requests_of(teacher, item) if isinstance(teacher, EndpointTeachStage) else []

    done = remove(root, wanted, lambda: _run_again(root), asked)
    if arguments.json:
        print(json.dumps(asdict(done)))
        return 0
    for id in done.ids:
        print(f"removed {id}")
    if not done.ids:
        print("No picture of the corpus is meant; it is noted, and none such will come in.")
    for path in done.left:
        print(f"{path} lies outside of the corpus and was left where it is.")
    return 0


def _run_again(root: Path) -> None:
    """Compute again what was computed of a corpus: its stages, and products where there are some."""
    from llavar.corpus.products import PRODUCTS, write_products
    from llavar.corpus.recipe import saved_recipe, source_of, stages_of
    from llavar.corpus.removed import withheld
    from llavar.corpus.shards import SCAN, STAGES, Corpus, RunSettings
    from llavar.models.sight import HuggingFace

    recipe, corpus = saved_recipe(root), Corpus(root)
    stages = stages_of(recipe, root.absolute(), HuggingFace())
    computed = [place for place, stage in enumerate(stages, 1) if (root / STAGES / stage.name).is_dir()]
    names = [SCAN, *(stage.name for stage in stages)][: 1 + max(computed, default=0)]
    settings = RunSettings(shard_rows=recipe.shard_rows, workers=recipe.workers)
    corpus.run(withheld(source_of(recipe, root), root), stages, settings=settings, until=names[-1])
    if (root / PRODUCTS).is_dir():
        write_products(corpus, names, recipe.products, base=root)


# ---------------------------------------------------------------------------------------------- card


def _add_card(parts: Commands) -> None:
    parser = parts.add_parser(
        "card",
        help="a data card as Markdown and as a page with pictures",
        description="Write card.md and card.html into the products of a corpus: what it holds, what was left "
        "out and why, and how it was made.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="measure lengths in its tokens as well")
    parser.set_defaults(command=_card)


def _card(arguments: argparse.Namespace) -> int:
    from llavar.corpus.card import write_card

    name = "" if arguments.tokenizer is None else arguments.tokenizer.absolute().name
    for path in write_card(arguments.corpus, tokens=_counting(arguments.tokenizer), tokenizer=name):
        print(path)
    return 0


# ---------------------------------------------------------------------------------------------- hashes


def _add_hashes(parts: Commands) -> None:
    parser = parts.add_parser(
        "hashes",
        help="hashes of an evaluation set's pictures, to keep them out of a corpus",
        description="Hash the pictures of an evaluation set. A recipe that names the file ( decontaminate: "
        "{hashes: [F]} ) keeps these pictures and edited copies of them out.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--name", required=True, help="of the set, as in reports: textvqa")
    parser.add_argument("--out", type=Path, required=True, metavar="F.jsonl")
    parser.add_argument("--add", action="store_true", help="keep the other sets that F holds")
    parser.add_argument("--workers", type=count, metavar="N", help="processes (one per CPU)")
    parser.set_defaults(command=_hashes)


def _hashes(arguments: argparse.Namespace) -> int:
    import os

    from llavar.corpus.decontaminate import write_hashes

    workers = arguments.workers or os.cpu_count() or 1
    done = write_hashes(arguments.folder, arguments.name, arguments.out, workers=workers, add=arguments.add)
    for one in done.failed:
        print(f"not hashed: {one.id}: {one.detail}")
    print(f"{done.pictures} pictures of {arguments.name} in {arguments.out}")
    return 1 if done.failed else 0
