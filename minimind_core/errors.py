"""The one exception for problems that the user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class WorkbookError(Exception):
    """A problem with the user's input; the message names the place, what is wrong and what to do."""


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a script's main and leave with its status.

    A problem that the user can mend is one line on stderr, status 1.
    """
    try:
        sys.exit(main())
    except WorkbookError as error:
        sys.exit(f"错误：{error}")
