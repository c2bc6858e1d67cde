"""What the strategy asked and what a device said, each as the other one has it."""

from __future__ import annotations

from protos import lorawan as wire
from protos import recast_v1_pb2 as pb
from recast_core.wire.codec import Encoded, Vector, decode
from server.lorawan.states import Ask, DeviceState

_EXPECTED = {wire.Down.TRAIN: wire.Up.UPDATE, wire.Down.EVALUATE: wire.Up.EVALUATION}


def greeting(device: DeviceState, request: pb.HelloRequest) -> pb.Hello:
    """What a device announced, as an answer to a greeting."""
    prefix = int.from_bytes(request.bank.sha256[:4], "big")
    said = list(device.announced.values())
    hello = pb.Hello(holds_bank=all(a.bank == prefix for a in said), client=said[0].client)
    for task in request.tasks:
        found = device.announced.get(task.id)
        if found is None:
            hello.lacks.add(task=task.id, reason=pb.Refusal.REASON_NO_DATA)
        elif task.wants_classes:
            detail = "class names do not go over LoRaWAN: have the task's data on the server too"
            hello.lacks.add(task=task.id, reason=pb.Refusal.REASON_CLASSES, detail=detail)
        elif task.classes and task.class_hash != found.class_hash:
            reason = pb.Refusal.REASON_CLASSES
            hello.lacks.add(task=task.id, reason=reason, detail="its classes are in another order")
        else:
            hello.tasks.add(
                task=task.id,
                train_examples=found.train,
                test_examples=found.test,
                classes=found.classes,
                local_classes=found.local_classes,
                class_hash=found.class_hash,
            )
    return hello


def offsets(sent: pb.Broadcast) -> Vector:
    """The offsets of a broadcast ``[D]``; none where it is the bank's start."""
    bits = sent.bits or 16
    count = 8 * len(sent.coefficients) // bits
    return decode(Encoded(sent.coefficients, sent.scale), count, bits)


def answer_to(ask: Ask, frame: wire.Said, bank: int) -> pb.ToServer | None:
    """The message that a device's frame stands for; ``None`` where it answers something else.

    Args:
        ask: the question.
        frame: of the device, about the same task and round.
        bank: first bytes of the SHA-256 of the one that the device announced.

    Raises:
        DecodeError: an evaluation that is none.
    """
    if frame.kind == wire.Up.REFUSAL:
        reason = frame.body[0] if frame.body else pb.Refusal.REASON_FAILED
        refusal = pb.Refusal(reason=reason, task=frame.task, round=frame.round)  # type: ignore[arg-type]
        return pb.ToServer(refusal=refusal)
    if frame.kind != _EXPECTED[ask.kind]:
        return None
    if frame.kind == wire.Up.UPDATE:
        update = pb.Update(
            bank=bank,
            task=frame.task,
            round=frame.round,
            examples=frame.examples,
            scale=frame.scale,
            coefficients=frame.body,
        )
        return pb.ToServer(update=update)
    evaluation = pb.Evaluation.FromString(frame.body)
    evaluation.bank, evaluation.task, evaluation.round = bank, frame.task, frame.round
    return pb.ToServer(evaluation=evaluation)
