"""A client as Flower would call it: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import app
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core import TemplateBank, mimic
from recast_core.backbones import load_backbone
from recast_core.setting_values import Value
from recast_core.settings import Settings
from recast_core.wire.messages import Hyperparameters, bank_ref, to_broadcast
from server.flower import number, server_identity

HYPER = Hyperparameters(epochs=1, batch=16, learning_rate=0.05)


@dataclass
class Caller:
    """Calls one client's ClientApp."""

    bank: TemplateBank
    settings: Settings
    folder: Path
    tasks: list[pb.Task]
    share: int = 0
    own: dict[str, Value] = field(default_factory=dict)
    state: RecordDict = field(default_factory=RecordDict)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def raw(self, content: RecordDict, kind: str = "train") -> pb.ToServer:
        message = Message(content, 7, kind, group_id="")
        number(message)
        context = Context(
            run_id=1,
            node_id=7,
            node_config={
                "partition-id": self.share, "num-partitions": 2, "cache-dir": str(self.cache),
                **self.own,
            },
            state=self.state,
            run_config=dict(self.settings.as_dict()),
        )  # fmt: skip
        reply = app(message, context)
        body = from_content(reply)
        assert body is not None
        return pb.ToServer.FromString(body)

    def call(self, body: pb.ToClient | bytes, kind: str = "train") -> pb.ToServer:
        content = body if isinstance(body, bytes) else body.SerializeToString()
        return self.raw(to_content(content), kind)

    def hello(self, sha256: bytes | None = None) -> pb.ToServer:
        reference = bank_ref(self.bank, 1)
        if sha256 is not None:
            reference.sha256 = sha256
        request = pb.HelloRequest(bank=reference, tasks=self.tasks)
        return self.call(pb.ToClient(hello=request), "query.hello")

    def deliver(self, content: bytes | None = None, sha256: bytes | None = None) -> pb.ToServer:
        delivery = pb.BankDelivery(
            bank=pb.BankRef(sha256=self.bank.sha256 if sha256 is None else sha256),
            content=self.bank.to_bytes() if content is None else content,
        )
        return self.call(pb.ToClient(bank=delivery), "query.bank")

    def broadcast(self, task: int = 1, round_: int = 1, shift: float = 0.0) -> pb.Broadcast:
        vector = self.bank.initial_vector.numpy() + np.float32(shift)
        return to_broadcast(self.bank, task, round_, vector, HYPER)

    def train(self, broadcast: pb.Broadcast | None = None) -> pb.ToServer:
        return self.call(pb.ToClient(train=broadcast or self.broadcast()), "train")

    def evaluate(self, broadcast: pb.Broadcast | None = None) -> pb.ToServer:
        return self.call(pb.ToClient(evaluate=broadcast or self.broadcast()), "evaluate")


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture(scope="session")
def one_class_file(tmp_path_factory: pytest.TempPathFactory, digits_file: Path) -> Path:
    with np.load(digits_file) as file:
        arrays = dict(file)
    arrays["y_train"] = np.ones_like(arrays["y_train"])
    path = tmp_path_factory.mktemp("one") / "one.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.fixture
def caller(
    tiny: Callable[..., Settings], digits_file: Path, one_class_file: Path, tmp_path: Path
) -> Caller:
    settings = tiny()
    bank = mimic(load_backbone(settings.backbone).model, settings.recast())
    tasks = [
        pb.Task(id=1, name="a", source=f"npz:{digits_file}"),
        pb.Task(id=2, name="gone", source="npz:/nowhere.npz"),
        pb.Task(id=3, name="one", source=f"npz:{one_class_file}"),
        pb.Task(id=4, name="nameless"),
    ]
    return Caller(bank, settings, tmp_path, tasks)


@pytest.fixture
def ready(caller: Caller) -> Caller:
    """A client that was greeted and holds the bank."""
    caller.hello()
    caller.deliver()
    return caller


@pytest.fixture
def foreign() -> list[RecordDict]:
    """Contents that are not ours."""
    return [RecordDict(), RecordDict({"r": ConfigRecord({"m": "text"})}),
            RecordDict({"x": ConfigRecord({"m": b""})})]  # fmt: skip
