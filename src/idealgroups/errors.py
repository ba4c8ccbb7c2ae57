"""The one exception a user of this library meets."""


class IdealGroupsError(Exception):
    """Something the caller can mend. The message is one sentence that says what is wrong and what to do."""
