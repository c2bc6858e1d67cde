"""The ClientApp: greet, keep the bank, train coefficients, evaluate."""

from __future__ import annotations

import logging
import time

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from google.protobuf.message import DecodeError

from client import answer
from client.node import Node
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.errors import RecastError

logger = logging.getLogger("recast.client")
app = ClientApp()
_STATE = "recast"


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say which bank and which data this client has; remember the tasks by number."""
    return _reply(message, context)


@app.query("bank")
def bank(message: Message, context: Context) -> Message:
    """Keep the bank that the server sent."""
    return _reply(message, context)


@app.query("head")
def head(message: Message, context: Context) -> Message:
    """Tell of local features what the server makes a head from."""
    return _reply(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit coefficients on local images."""
    return _reply(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure accuracy on local test images."""
    return _reply(message, context)


def _reply(message: Message, context: Context) -> Message:
    try:
        request = pb.ToClient.FromString(from_content(message) or b"")
        body = _answer(request, Node.from_context(context), context)
    except DecodeError:
        body = answer.refusal(pb.Refusal.REASON_MALFORMED, "bytes that are no message of ours")
    except RecastError as error:
        body = answer.refusal(pb.Refusal.REASON_FAILED, str(error))
    return Message(to_content(body.SerializeToString()), reply_to=message)


def _answer(request: pb.ToClient, node: Node, context: Context) -> pb.ToServer:
    match request.WhichOneof("body"):
        case "hello":
            # Flower keeps this state between the messages of a run, so that rounds need not
            # repeat names; a node that lost it answers "unknown task" and is greeted again.
            known = pb.HelloRequest(tasks=request.hello.tasks).SerializeToString()
            context.state[_STATE] = ConfigRecord({"tasks": known})
            return pb.ToServer(hello=answer.hello(request.hello, node))
        case "bank":
            return answer.store_bank(request.bank, node)
        case "train":
            began = time.monotonic()
            update = answer.train(request.train, _known_tasks(context), node)
            if (spent := time.monotonic() - began) > node.settings.deadline:
                logger.warning(
                    "round %d took %.0f s here and %.0f s are allowed: the server refuses the "
                    "update as late",
                    request.train.round,
                    spent,
                    node.settings.deadline,
                )
            return update
        case "head":
            return answer.head(request.head, _known_tasks(context), node)
        case "evaluate":
            return answer.evaluate(request.evaluate, _known_tasks(context), node)
        case _:
            return answer.refusal(pb.Refusal.REASON_MALFORMED, "an empty message")


def _known_tasks(context: Context) -> dict[int, pb.Task]:
    record = context.state.config_records.get(_STATE)
    known = b"" if record is None else record["tasks"]
    assert isinstance(known, bytes)
    return {task.id: task for task in pb.HelloRequest.FromString(known).tasks}
