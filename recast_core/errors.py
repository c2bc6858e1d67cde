"""The one error that users are meant to see."""


class RecastError(Exception):
    """Something the user can mend: the message is one line that names the cause and the remedy."""
