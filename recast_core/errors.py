"""The one error that users are meant to see, and what it says of others."""


class RecastError(Exception):
    """Something the user can mend: the message is one line that names the cause and the remedy.

    Attributes:
        told: what others than the user may be told of it; the message, where nothing else is said.
    """

    def __init__(self, message: str = "", *, told: str = "") -> None:
        super().__init__(message)
        self.told = told or message


def in_a_line(error: BaseException, most: int = 160) -> str:
    """The kind and text of a stranger's error on one line, of at most so many characters."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return " ".join(said.split())[:most]
