"""``python -m llavar.legacy``, for torchrun."""

import sys

from llavar.cli import main

sys.exit(main(["legacy", *sys.argv[1:]]))
