"""What the bytes of a message are: of which kind, how many of them payload."""

from __future__ import annotations

from collections.abc import Iterator

from protos import recast_v1_pb2 as pb
from server.record.rows import Kind

# Kind, payload and message bytes.
Part = tuple[Kind, int, int]


def parts_down(body: pb.ToClient, size: int) -> Iterator[Part]:
    """Each part of what is sent, of ``size`` bytes in all."""
    match body.WhichOneof("body"):
        case "bank":
            yield "bank", len(body.bank.content), size
        case "train":
            if head := body.train.kept.head:
                size -= (taken := pb.KeptHead(head=head).ByteSize())
                yield "head", len(head), taken
            if body.train.HasField("secure"):
                # With its tag, which takes two bytes, and its length.
                taken = body.train.secure.ByteSize() + 3
                size -= taken
                yield "shares", taken, taken
            yield "coefficients", len(body.train.coefficients), size
        case "evaluate":
            for kind, content in (
                ("head", body.evaluate.head or body.evaluate.kept.head),
                ("metrics", body.evaluate.start_head),
            ):
                if content:
                    # With its tag and its length.
                    taken = pb.Broadcast(head=content).ByteSize()
                    size -= taken
                    yield kind, len(content), taken  # type: ignore[misc]
            yield "coefficients", len(body.evaluate.coefficients), size
        case "head":
            yield _of_start(body.head.round), len(body.head.coefficients), size
        case "keys":
            yield "keys", sum(len(one.public) for one in body.keys.members), size
        case "open":
            yield "shares", len(body.open.shares), size
        case _:
            yield "control", 0, size


def parts_up(message: pb.ToServer, size: int) -> Iterator[Part]:
    """Each part of an answer of ``size`` bytes."""
    match message.WhichOneof("body"):
        case "update":
            hidden = pb.Update(salt=message.update.salt, shares=message.update.shares).ByteSize()
            if hidden:
                yield "shares", len(message.update.shares), hidden
            yield "coefficients", len(message.update.coefficients), size - hidden
        case "head":
            yield _of_start(message.head.round), len(message.head.content), size
        case "evaluation":
            yield "metrics", 0, size
        case "keys":
            yield "keys", len(message.keys.member.public), size
        case "opened":
            yield "shares", len(message.opened.share), size
        case _:
            yield "control", 0, size


def _of_start(round_: int) -> Kind:
    """A head on the backbone as it came serves the report alone."""
    return "head" if round_ else "metrics"
