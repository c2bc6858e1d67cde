"""The report as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.report.figures import accuracy_figure, forgetting_figure
from experiments.report.figures_several import curves_figure, losses_figure, reached_figure
from experiments.report.figures_traffic import (
    bytes_figure,
    label_of,
    refusals_figure,
    tradeoff_figure,
)
from experiments.report.losses import loss_figure
from experiments.report.plots import Figure
from experiments.report.points import Point
from recast_core.errors import RecastError

FOLDER = Path(__file__).parent
NOTHING = "\u2013"
MINUS = "\u2212"
VEGA_LITE = "6.1"
# Settings that the head of the page shows anyway.
_ELSEWHERE = ("seed",)


def render(data: Mapping[str, Any], points: Sequence[Point], *, live: bool = False) -> str:
    """The page.

    Args:
        data: of ``report_data``.
        points: of the run itself and of whatever it is compared with.
        live: the page is served by the running federation, and keeps itself up to date.

    Raises:
        RecastError: the package that the plots need is missing.
    """
    made = (
        accuracy_figure(data),
        loss_figure(data),
        forgetting_figure(data),
        bytes_figure(data),
        tradeoff_figure(data, points),
        refusals_figure(data),
    )
    figures = {figure.name: figure for figure in made if figure is not None}
    settings = data["settings"].items()
    return _page(
        "template.html",
        figures,
        live=live,
        data=data,
        points=points,
        changed={
            name: entry["value"]
            for name, entry in settings
            if entry["changed"] and name not in _ELSEWHERE
        },
        wire=any(row["layer"] == "wire" for row in data["bytes"]),
        totals=_totals(data),
        kept=any("zero_byte_accuracy" in task for task in data["tasks"]),
    )


def render_waiting() -> str:
    """The live page before there is a run: who is there, and nothing else.

    Raises:
        RecastError: the package that the plots need is missing.
    """
    return _page("waiting.html", {}, live=True)


def render_several(shown: Mapping[str, Any]) -> str:
    """The page of several runs.

    Args:
        shown: of ``report_several``.

    Raises:
        RecastError: the package that the plots need is missing.
    """
    labels, runs = shown["labels"], shown["runs"]
    limits = {"tasks": [], "limits": runs[0]["limits"]}
    known = [
        label_of({"method": label, "transport": data["run"]["transport"]})
        for label, data in zip(labels, runs, strict=True)
    ]
    made = (
        reached_figure(labels, runs),
        curves_figure(labels, runs),
        losses_figure(labels, runs),
        tradeoff_figure(limits, shown["points"], known),
    )
    return _page(
        "several.html",
        {figure.name: figure for figure in made if figure is not None},
        rows=_rows(labels, runs),
        **{name: shown[name] for name in ("labels", "runs", "settings")},
    )


def _rows(labels: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and run, the runs of a task together."""
    names = dict.fromkeys(task["name"] for data in runs for task in data["tasks"])
    found = []
    for name in names:
        for label, data in zip(labels, runs, strict=True):
            totals = {row["task"]: row["bytes"] for row in _totals(data)}
            for task in data["tasks"]:
                if task["name"] != name:
                    continue
                without = task.get("zero_byte_accuracy", task["head_only_accuracy"])
                up, down = (totals[name].get(f"message_{way}") for way in ("up", "down"))
                found.append(
                    {"run": label, "task": task, "without": without, "up": up, "down": down}
                )
    return found


def _page(template: str, figures: Mapping[str, Figure], *, live: bool = False, **shown: Any) -> str:
    # The two scripts that may run are named by their hashes: text that came over the network would
    # stay text even if it got past the escaping.
    scripts = [plotting_library(), (FOLDER / "page.js").read_text(encoding="utf-8")]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent, "count": _count, "size": _size, "moment": _moment,
        "points": _points, "duration": _duration,
    }  # fmt: skip
    return environment.get_template(template).render(
        figures=figures,
        live=live,
        specs={name: figure.spec for name, figure in figures.items()},
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        **shown,
    )


@cache
def plotting_library() -> str:
    """Vega-Embed with Vega and Vega-Lite, as the text of one script.

    Raises:
        RecastError: vl-convert-python is missing.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise RecastError(
            "a report's plots need vl-convert-python: `pip install 'recast-fl[report]'`, or take "
            "the numbers alone with --json"
        ) from error
    bundle = str(
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    )
    return "(() => {" + bundle.replace("</script", r"<\/script").replace("<!--", r"<\!--") + "})();"


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _totals(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bytes by task, ``None`` last, with a column for each layer and direction."""
    rows: dict[str | None, dict[str, Any]] = {task["name"]: {} for task in data["tasks"]}
    for row in data["bytes"]:
        columns = rows.setdefault(row["task"], {})
        name = f"{row['layer']}_{row['direction']}"
        columns[name] = columns.get(name, 0) + row["bytes"]
    ordered = sorted(rows.items(), key=lambda item: item[0] is None)
    return [{"task": task, "bytes": columns} for task, columns in ordered]


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.1f} %"


def _points(difference: float | None) -> str:
    """A difference of accuracies in points, with its sign; what rounds to nothing has none."""
    if difference is None:
        return NOTHING
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def _count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}".replace(",", "\u202f")


def _size(number: float | None) -> str:
    """Bytes in a unit that keeps three digits."""
    if number is None:
        return NOTHING
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _moment(text: str | None) -> str:
    return NOTHING if text is None else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
