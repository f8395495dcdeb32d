"""The one exception for problems that the user can mend."""


class WorkbookError(Exception):
    """A problem with the user's input; the message names the place, what is wrong and what to do."""
