"""`python -m minimind_core.cli` is the `minimind` command."""

import sys

from minimind_core.cli import main

sys.exit(main())
