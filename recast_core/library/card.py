"""The model card of a library: a README that people and Hugging Face's hub read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from recast_core.text import how_many

if TYPE_CHECKING:
    from recast_core.library.library import TaskLibrary
    from recast_core.library.pretrained import About

_SHOWN = 20


def card(library: TaskLibrary, about: About) -> str:
    """Markdown that names bank, backbone, licence, and each task's classes, size and figures."""
    bank = library.bank
    names = [*dict.fromkeys(key for figures in about.figures.values() for key in figures)]
    head = ["task", "classes", "coefficients", "bytes", *names]
    rows = []
    for name in library.list():
        task, figures = library[name], about.figures.get(name, {})
        shown = [_figure(figures[key]) if key in figures else "" for key in names]
        count = str(task.weight.shape[0])
        rows.append(
            [_cell(name), count, str(task.coefficients.numel()), f"{task.nbytes:,}", *shown]
        )
    classes = [
        f"- **{_cell(name)}**: {_cell(', '.join(found[:_SHOWN]))}"
        + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        for name in library.list()
        if (found := library[name].classes)
    ]
    said = about.backbone or "not said"
    return "\n".join(
        [
            "---",
            "library_name: recast",
            "pipeline_tag: image-classification",
            "tags: [recast, federated-learning, continual-learning]",
            *([f"license: {json.dumps(about.licence)}"] if about.licence else []),
            "---",
            "",
            f"# {how_many(len(library), 'task')} of one backbone",
            "",
            "Each task is a handful of coefficients of one template bank, and a linear head.",
            "",
            "| | |",
            "|---|---|",
            f"| backbone | `{_cell(said)}` |",
            f"| template bank | SHA-256 `{bank.sha256.hex()}` |",
            f"| coefficients sent for a task | {bank.sent} |",
            f"| licence | {_cell(about.licence or 'not said')} |",
            "",
            f"| {' | '.join(map(_cell, head))} |",
            f"|{'---|' * len(head)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(["## Classes", "", *classes, ""] if classes else []),
            "## Use",
            "",
            "```python",
            "import recast",
            "",
            'tasks = recast.TaskLibrary.from_pretrained("THIS FOLDER")',
            "backbone = recast.load_backbone(tasks.about.backbone)",
            "net = recast.attach(backbone.model, tasks.bank, backbone.head)",
            f"tasks.activate(net, {library.list()[0]!r})" if len(library) else "",
            "```",
            "",
        ]
    )


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _cell(text: str) -> str:
    """Text in a cell of a table, where a bar or a line end would begin another."""
    return " ".join(text.replace("|", "\\|").split())
