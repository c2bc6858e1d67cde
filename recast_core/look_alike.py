"""Names that look the same and are not: letters of one script in the place of another's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable

# What common typefaces draw like a Latin letter, a hyphen or an apostrophe. Unicode's own table of
# confusables (UTS 39) has thousands, of scripts that nobody types by mistake.
_LATIN = {
    "a": "\u0430\u03b1\u0251",
    "c": "\u0441\u03f2",
    "d": "\u0501",
    "e": "\u0435\u04bd",
    "g": "\u0261",
    "h": "\u04bb\u0570",
    "i": "\u0456\u03b9\u0131",
    "j": "\u0458\u03f3",
    "k": "\u043a\u03ba",
    "l": "\u04cf",
    "n": "\u0578",
    "o": "\u043e\u03bf\u0585",
    "p": "\u0440\u03c1",
    "q": "\u051b",
    "s": "\u0455",
    "u": "\u03c5\u057d",
    "v": "\u03bd\u0475",
    "w": "\u051d",
    "x": "\u0445\u03c7",
    "y": "\u0443\u03b3\u04af",
    "A": "\u0410\u0391",
    "B": "\u0412\u0392",
    "C": "\u0421\u03f9",
    "E": "\u0415\u0395",
    "F": "\u03dc",
    "H": "\u041d\u0397",
    "I": "\u0406\u0399\u04c0",
    "J": "\u0408",
    "K": "\u041a\u039a",
    "M": "\u041c\u039c",
    "N": "\u039d",
    "O": "\u041e\u039f\u0555",
    "P": "\u0420\u03a1",
    "Q": "\u051a",
    "S": "\u0405\u054f",
    "T": "\u0422\u03a4",
    "U": "\u054d",
    "W": "\u051c",
    "X": "\u0425\u03a7",
    "Y": "\u0423\u03a5\u04ae",
    "Z": "\u0396",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2212",
    "'": "\u2019\u2018\u02bc",
}
_TABLE = str.maketrans({like: latin for latin, all_ in _LATIN.items() for like in all_})


def skeleton(name: str) -> str:
    """What is seen of a name: the same for names that look alike."""
    if name.isascii():
        return name
    apart = unicodedata.normalize("NFKD", name)
    seen = "".join(letter for letter in apart if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", seen.translate(_TABLE))


def strange_letter(name: str) -> str:
    """The first letter of a name that is not what it looks like, as Unicode calls it; or none."""
    for letter in unicodedata.normalize("NFKD", name):
        if skeleton(letter) != letter:
            return unicodedata.name(letter, f"U+{ord(letter):04X}")
    return ""


def look_alikes(names: Iterable[str], key: Callable[[str], str]) -> list[tuple[str, str]]:
    """Pairs of names that look alike and whose ``key`` differs, the plainer one first."""
    seen: dict[str, str] = {}
    found = []
    for name in sorted(set(names), key=lambda name: (bool(strange_letter(name)), name)):
        other = seen.setdefault(key(skeleton(name)), name)
        if key(other) != key(name):
            found.append((other, name))
    return found
