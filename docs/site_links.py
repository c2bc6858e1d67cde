"""The site's links to files outside docs/: they lead to the source tree's text, not to a page."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([A-Za-z0-9_./-]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name such a file where a link to it would lead nowhere."""
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)
