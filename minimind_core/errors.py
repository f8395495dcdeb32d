"""The one exception for problems that the user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class WorkbookError(Exception):
    """A problem with the user's input; the message names the place, what is wrong and what to do."""


def exit_with(main: Callable[[], int], stopped: str = "") -> NoReturn:
    """Run a script's main and leave with its status.

    A problem that the user can mend is one line on stderr, status 1; `stopped` is added after Ctrl-C.
    """
    try:
        sys.exit(main())
    except WorkbookError as error:
        sys.exit(f"错误：{error}")
    except KeyboardInterrupt:
        print(f"\n已停止。{stopped}", file=sys.stderr)
        sys.exit(130)
