"""Text that somebody else wrote, made fit for a log, a terminal and a page."""

from __future__ import annotations

import re

LONGEST = 300
# What a terminal takes for orders: colours and movements, and titles and links.
_ORDERS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x9b[0-?]*[@-~]", re.S
)


def how_many(count: int, word: str) -> str:
    """``count`` with its noun, of which there is one or any other number: "1 client", "20 clients".

    Args:
        count: how many.
        word: the noun of one: with more than one it ends in "es" after an s and in "s" else.
    """
    ending = "" if count == 1 else "es" if word.endswith("s") else "s"
    return f"{count} {word}{ending}"


def plain(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, with nothing in it that cannot be seen, ``longest`` characters at most.

    Orders to a terminal go as a whole; other controls, line ends, NUL, characters that reverse the
    direction of writing and halves of characters become spaces, and of several spaces one is left.
    """
    # Nobody needs to look at more than this to cut it to its length.
    text = _ORDERS.sub(" ", text[: 20 * longest])
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
