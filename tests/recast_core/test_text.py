"""Foreign text becomes one line that shows all of what it does."""

from __future__ import annotations

import pytest

from recast_core.text import LONGEST, how_many, plain


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no room on disk", "no room on disk"),
        ("a\r\nINFO fake line\x00end", "a INFO fake line end"),
        ("\x1b[2J\x1b[31mOWNED\x1b[0m", "OWNED"),
        ("\x1b]0;title\x07after \x1b]8;;http://x\x1b\\link", "after link"),
        ("\x1b]0;never ends", ""),
        ("\x9b31mred", "red"),
        ("\x1b", ""),
        ("abc\u202ecba\u2066x", "abc cba x"),
        ("zero\u200bwidth\ufeff", "zero width"),
        ("half \ud800 letter", "half letter"),
        ("Blüten  花\u3000園", "Blüten 花 園"),
        ("<b>&amp; [bold]'; DROP TABLE", "<b>&amp; [bold]'; DROP TABLE"),
    ],
)
def test_text_is_one_line_without_orders_to_a_terminal(text: str, line: str) -> None:
    assert plain(text) == line
    assert plain(line) == line


def test_long_text_is_cut_and_says_so() -> None:
    assert plain("x" * LONGEST) == "x" * LONGEST
    assert plain("x" * 10**7) == "x" * (LONGEST - 1) + "…"
    assert plain("abcdef", 3) == "ab…"


def test_one_of_a_thing_is_not_said_as_many() -> None:
    told = [how_many(count, "client") for count in (0, 1, 2, 20)]
    assert told == ["0 clients", "1 client", "2 clients", "20 clients"]
    assert [how_many(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]
