"""``llavar inspect``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llavar.cli.arguments import Commands, count


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "inspect",
        help="show rows of instruction data as a model will see them, supervised tokens marked",
        description="Show rows of instruction data (LLaVA's JSON, JSONL, Parquet, a WebDataset tar) as "
        "tokens, learned ones marked.",
    )
    parser.add_argument("data", type=Path, metavar="DATA.json")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer (default: nano's)"
    )
    parser.add_argument(
        "--conversation", default="", metavar="NAME", help="llava_v1, vicuna_v1_1, multimodal ..."
    )
    parser.add_argument(
        "--image-tokens", type=count, metavar="N", help="tokens of a picture (default: 576; nano: 144)"
    )
    parser.add_argument(
        "--tiles",
        default="1x1",
        metavar="ROWSxCOLUMNS",
        help="pictures as an overview and tiles: 2x2, 2x2+17%%",
    )
    parser.add_argument(
        "--no-start-end", action="store_true", help="no <im_start> and <im_end> around pictures"
    )
    parser.add_argument("--max-length", type=count, metavar="N", help="cut rows here, as training will")
    parser.add_argument("--limit", type=count, metavar="N", help="show the first N rows only")
    parser.add_argument(
        "--stats", action="store_true", help="at the end, lengths of all rows and why some are unusable"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with pictures instead (the first 50 rows)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the rows' pictures: a folder, tar or zip")
    parser.add_argument("--transform", choices=("pad", "fit", "crop"), default="pad", help="(pad)")
    parser.add_argument(
        "--image-size", type=count, metavar="N", help="pixels that the tower takes (336; nano: 96)"
    )
    parser.add_argument(
        "--json", action="store_true", help='a line a row: {"id", "input_ids", "labels"} or {"id", "error"}'
    )
    parser.set_defaults(command=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from llavar import chat
    from llavar.data.inspect import inspect
    from llavar.data.inspect_page import write_page
    from llavar.data.rows import Encoder
    from llavar.errors import ConfigError
    from llavar.images import Tiles, Transform
    from llavar.models.tokenizer import load_tokenizer, nano_tokenizer

    v0 = arguments.conversation in ("multimodal", "v0_train")
    start_end = not arguments.no_start_end
    tiles = Tiles.parse(arguments.tiles)
    own = arguments.tokenizer is None
    tokenizer = nano_tokenizer() if own else load_tokenizer(arguments.tokenizer, v0=v0, start_end=start_end)
    asked = chat.get(arguments.conversation) if arguments.conversation else tokenizer.template()
    encoder = Encoder.known(
        tokenizer,
        f"{tokenizer.bos}\n{tokenizer.backend.to_str()}",
        chat.for_training(asked),
        image_tokens=arguments.image_tokens or (144 if own else 576),
        views=tiles.views,
        start_end=start_end,
        max_length=arguments.max_length,
        unknown=tokenizer.unk_id,
    )
    if arguments.json and (arguments.stats or arguments.html):
        raise ConfigError("--json writes a line for each row and nothing else; leave --stats and --html out")
    if arguments.images and not arguments.html:
        raise ConfigError(f"pictures of {arguments.images} are shown on a page; add --html FILE")
    if arguments.html:
        write_page(
            arguments.data,
            arguments.html,
            encoder=encoder,
            pictures=arguments.images,
            transform=Transform(arguments.transform),
            size=arguments.image_size or (96 if own else 336),
            tiles=tiles,
            limit=arguments.limit or 50,
        )
        print(f"The rows are in {arguments.html}.", file=sys.stderr)
        return 0
    inspect(
        arguments.data,
        tokenizer=tokenizer,
        template=encoder.template,
        image_tokens=encoder.image_tokens,
        views=encoder.views,
        start_end=start_end,
        max_length=arguments.max_length,
        as_json=arguments.json,
        limit=arguments.limit,
        stats=encoder if arguments.stats else None,
        out=sys.stdout,
    )
    return 0
