"""`python -m opendino` is the command `opendino`."""

import sys

from opendino.cli import main

sys.exit(main())
