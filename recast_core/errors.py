"""The one error that users are meant to see, and what it says of others."""


class RecastError(Exception):
    """Something the user can mend: the message is one line that names the cause and the remedy."""


def in_a_line(error: BaseException, most: int = 160) -> str:
    """The kind and text of a stranger's error on one line, of at most so many characters."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join(said.split())[:most]
