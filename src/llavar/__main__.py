"""``python -m llavar`` is the ``llavar`` command."""

import sys

from llavar.cli import main

sys.exit(main())
