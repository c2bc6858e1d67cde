"""``recast plan``: what a configuration costs before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from experiments.command.caution import warn_of_lone_layers, warn_of_many
from experiments.command.console import stdout
from experiments.command.usual import config_for
from experiments.engines.radio import fitting, radio
from protos import recast_v1_pb2 as pb
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.mimicry import mimic
from recast_core.wire.codec import check_bits
from recast_core.wire.messages import to_update


def plan(backbone: str, values: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """Print the plan as a table and return it as JSON values; ``values`` are options of a bank."""
    check_bits(bits)
    # Shapes decide all of it: a torchvision classifier's weights are not downloaded.
    loaded = load_backbone(backbone, weights=False)
    bank = mimic(loaded.model, config_for(loaded, values))
    warn_of_many(bank)
    warn_of_lone_layers(bank)
    update = update_bytes(bank, bits)
    report: dict[str, Any] = {
        "trained": bank.trained,
        "sent": bank.sent,
        "templates": bank.template_count,
        "groups": len(bank.groups),
        "bank_bytes": len(bank.to_bytes()),
        "update_bytes": update,
        "fits": [radio.title for radio in fitting(update)],
    }
    table = Table(title=f"{backbone}, {bits} bits", show_header=False)
    for label, key in (
        ("coefficients trained", "trained"),
        ("coefficients sent", "sent"),
        ("groups", "groups"),
        ("templates", "templates"),
        ("bank, bytes, once", "bank_bytes"),
        ("update, bytes", "update_bytes"),
    ):
        table.add_row(label, f"{report[key]:,}")
    table.add_row("an update fits", ", ".join(report["fits"]) or "no radio frame")
    slowest = radio("lorawan-dr0")
    table.add_row("seconds on air, LoRaWAN DR0", f"{slowest.seconds_on_air(update):.1f}")
    table.add_row("updates a day, LoRaWAN DR0", f"{slowest.messages_per_day(update):,}")
    stdout().print(table)
    return report


def update_bytes(bank: TemplateBank, bits: int) -> int:
    """The length of a serialised update: made, not computed, for a task that is well under way."""
    offsets = np.random.default_rng(0).normal(0, 0.01, bank.sent).astype(np.float32)
    update = to_update(bank, task=9, round_=100, examples=1000, offsets=offsets, bits=bits)
    return len(pb.ToServer(update=update).SerializeToString())
