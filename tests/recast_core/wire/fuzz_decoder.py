"""Coverage-guided fuzzing of all that decodes a stranger's bytes: not collected by pytest.

``pip install atheris && python tests/fuzz_decoder.py /tmp/corpus -max_total_time=600``
Anything but a refusal is a finding.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["recast_core", "server", "protos", "google.protobuf"]):
    import torch
    from google.protobuf.message import DecodeError

    from protos import link_v1_pb2 as link
    from protos import recast_v1_pb2 as pb
    from recast_core import TemplateBank, TemplateGroup
    from recast_core.heads import head_kind, head_names
    from recast_core.wire.codec import WIDTHS, CodecError, Encoded, decode
    from recast_core.wire.head_bytes import (
        pack_head,
        pack_statistics,
        unpack_head,
        unpack_statistics,
    )
    from recast_core.wire.messages import (
        Hyperparameters,
        RefusedError,
        from_broadcast,
        hyperparameters,
        to_broadcast,
    )
    from server.exchange.share import Share
    from server.rounds.checks import check_evaluation, check_head, check_update

TRAVELLING = [name for name in head_names() if head_kind(name).travels]
D = 6
BANK = TemplateBank((TemplateGroup("g", ("m",), "weight", (0,), torch.eye(D)),), (torch.zeros(D),))
Z = torch.ones(D).numpy()
SHARE = Share(train_examples=40, test_examples=20, classes=4, local_classes=4)


def answers(content: bytes) -> None:
    """What a client sends."""
    message = pb.ToServer.FromString(content)
    bits = WIDTHS[len(content) % len(WIDTHS)]
    match message.WhichOneof("body"):
        case "update":
            message.update.bank = BANK.prefix
            check_update(BANK, message.update, message.update.round, SHARE, bits)
        case "evaluation":
            message.evaluation.bank = BANK.prefix
            check_evaluation(BANK, message.evaluation, message.evaluation.round, SHARE)
        case "head":
            message.head.bank = BANK.prefix
            for kind in TRAVELLING:
                check_head(BANK, message.head, SHARE, kind, 4, 3)


def questions(content: bytes) -> None:
    """What a server sends."""
    message = pb.ToClient.FromString(content)
    if message.WhichOneof("body") == "train":
        message.train.bank = BANK.prefix
        hyperparameters(message.train)
        from_broadcast(BANK, message.train)


def parts(content: bytes) -> None:
    """What lies within messages."""
    if not content:
        return
    bits = WIDTHS[content[0] % len(WIDTHS)]
    decode(Encoded(content[1:], float(content[0])), D, bits)


def heads(content: bytes) -> None:
    """Heads and their statistics."""
    for kind in TRAVELLING:
        with suppress(RefusedError):
            unpack_head(content, kind)
        with suppress(RefusedError):
            unpack_statistics(kind, content, 4, 3)


def frames(content: bytes) -> None:
    """Frames of the link."""
    link.FromClient.FromString(content)


TARGETS = (answers, questions, parts, heads, frames)


def one_input(content: bytes) -> None:
    """One execution: the first byte says what the others are given to."""
    with suppress(DecodeError, RefusedError, CodecError):
        TARGETS[content[0] % len(TARGETS) if content else 0](content[1:])


def write_seeds(folder: Path) -> None:
    """Sound messages, from which mutations reach further than from nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    update = pb.Update(task=1, round=1, examples=9, scale=0.5, coefficients=bytes(D))
    features, labels = torch.randn(8, 3), torch.arange(8) % 4
    found = [
        (0, pb.ToServer(update=update).SerializeToString()),
        (0, pb.ToServer(evaluation=pb.Evaluation(task=1, examples=9)).SerializeToString()),
        (1, pb.ToClient(train=to_broadcast(BANK, 1, 1, Z, Hyperparameters())).SerializeToString()),
        (2, bytes(range(1 + D))),
        (4, link.FromClient(number=1, reply=b"answer").SerializeToString()),
    ]
    for kind in TRAVELLING:
        told = pack_statistics(kind, head_kind(kind).statistics(features, labels, 4), 4)
        found.append((0, pb.ToServer(head=pb.HeadStatistics(content=told)).SerializeToString()))
        found += [(3, told), (3, pack_head(torch.nn.Linear(3, 4), kind))]
    for number, (target, content) in enumerate(found):
        (folder / f"seed-{number}").write_bytes(bytes([target]) + content)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
