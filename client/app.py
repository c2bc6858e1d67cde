"""The ClientApp: greet, keep the bank, train coefficients, evaluate."""

from __future__ import annotations

import logging
import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.alone import Alone
from client.answer import answer
from client.asked import Asked, refusal
from client.node import Node
from client.turn import take
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins

logger = logging.getLogger("recast.client")
app = ClientApp()


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


@app.query("keys")
def keys(message: Message, context: Context) -> Message:
    """Tell the key that hides updates in sums, and keep those of the others."""
    return _reply(message, context)


@app.query("open")
def open_sum(message: Message, context: Context) -> Message:
    """Tell a share of the sum of other clients' updates."""
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
    began = time.monotonic()
    try:
        load_plugins()
        node = Node.from_context(context)
        (body,) = take([answer(Asked(from_content(message) or b""), node)], Alone())
        spent = time.monotonic() - began
        if body.WhichOneof("body") == "update" and spent > node.settings.deadline:
            logger.warning(
                "round %d took %.0f s here and %.0f s are allowed: the server refuses the "
                "update as late",
                body.update.round,
                spent,
                node.settings.deadline,
            )
    except RecastError as error:
        body = refusal(pb.Refusal.REASON_FAILED, str(error), told=error.told)
    return Message(to_content(body.SerializeToString()), reply_to=message)
