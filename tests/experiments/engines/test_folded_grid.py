"""FoldedGrid answers as the ClientApps do, message by message and over a whole federation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from hypothesis import given
from hypothesis import strategies as st

from client.app import app
from experiments.engines.folded import FoldedGrid, FoldedOptions
from experiments.engines.sequential import SequentialGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core import TemplateBank, mimic
from recast_core.backbones import load_backbone
from recast_core.settings import Settings
from recast_core.wire.messages import Hyperparameters, bank_ref, from_update, to_broadcast
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry
from tests.examples import examples

CLIENTS = 6
# 32 bits: what training found, without the codec's rounding.
HYPER = Hyperparameters(epochs=2, batch=8, learning_rate=0.02, bits=32, seed=3)
Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    with server_identity():
        yield


class Talk:
    """Sends one body to every node of a grid and collects the parsed replies."""

    def __init__(self, grid: Grid, settings: Settings) -> None:
        self.grid = grid
        self.bank: TemplateBank = mimic(load_backbone(settings.backbone).model, settings.recast())
        sources = [spec.partition("=")[2] for spec in settings.tasks.split()]
        self.tasks = [
            pb.Task(id=i, name=f"t{i}", source=source) for i, source in enumerate(sources, 1)
        ]
        self.tasks.append(pb.Task(id=9, name="gone", source="npz:/nowhere.npz"))
        self.tasks.append(pb.Task(id=10, name="nameless"))

    def raw(self, content: RecordDict, kind: str, nodes: list[int]) -> list[Message]:
        messages = [Message(content, node, kind, group_id="") for node in nodes]
        return list(self.grid.send_and_receive(messages))

    def say(
        self, body: pb.ToClient | bytes, kind: str = "train", nodes: list[int] | None = None
    ) -> list[pb.ToServer]:
        content = body if isinstance(body, bytes) else body.SerializeToString()
        every = list(self.grid.get_node_ids()) if nodes is None else nodes
        replies = self.raw(to_content(content), kind, every)
        bodies = [from_content(reply) for reply in replies]
        assert all(body is not None for body in bodies)
        assert [reply.metadata.src_node_id for reply in replies] == every
        return [pb.ToServer.FromString(body) for body in bodies if body is not None]

    def hello(self) -> list[pb.ToServer]:
        request = pb.HelloRequest(bank=bank_ref(self.bank, 1), tasks=self.tasks)
        return self.say(pb.ToClient(hello=request), "query.hello")

    def deliver(self, nodes: list[int] | None = None, flip: bool = False) -> list[pb.ToServer]:
        sha256 = bytes(32) if flip else self.bank.sha256
        delivery = pb.BankDelivery(bank=pb.BankRef(sha256=sha256), content=self.bank.to_bytes())
        return self.say(pb.ToClient(bank=delivery), "query.bank", nodes)

    def broadcast(self, task: int = 1, shift: float = 0.0) -> pb.Broadcast:
        vector = self.bank.initial_vector.numpy() + np.float32(shift)
        return to_broadcast(self.bank, task, 1, vector, HYPER)


def both(
    settings: Settings, tmp_path: Path, options: FoldedOptions | None = None
) -> tuple[Talk, Talk]:
    return (
        Talk(SequentialGrid(CLIENTS, app, settings, tmp_path), settings),
        Talk(FoldedGrid(CLIENTS, settings, options=options), settings),
    )


def ready(*talks: Talk) -> None:
    for talk in talks:
        talk.hello()
        talk.deliver()


def same_updates(talks: tuple[Talk, Talk], replies: list[list[pb.ToServer]]) -> int:
    """Compare answers to the last bit; returns how many updates there were."""
    bank, count = talks[0].bank, 0
    for one, other in zip(*replies, strict=True):
        assert one.WhichOneof("body") == other.WhichOneof("body")
        if one.WhichOneof("body") == "refusal":
            one.refusal.ClearField("detail")  # it names a folder, or a client
            other.refusal.ClearField("detail")
        if one.WhichOneof("body") != "update":
            assert one == other
            continue
        count += 1
        vectors = [from_update(bank, reply.update, HYPER.bits) for reply in (one, other)]
        np.testing.assert_array_equal(*vectors)
        assert np.abs(vectors[0]).max() > 5e-3
        for reply in (one, other):
            reply.update.ClearField("coefficients")
            reply.update.ClearField("scale")
        assert one == other
    return count


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.5", "shards:1"])
def test_every_answer_is_what_the_client_app_answers(
    tiny: Make, tmp_path: Path, partition: str
) -> None:
    talks = both(tiny(partition=partition), tmp_path)
    assert talks[0].hello() == talks[1].hello()
    assert talks[0].deliver() == talks[1].deliver()
    assert talks[0].hello() == talks[1].hello()
    trained = 0
    for task, shift in ((1, 0.0), (1, 0.1), (2, 0.0)):
        request = pb.ToClient(train=talks[0].broadcast(task, shift))
        trained += same_updates(talks, [talk.say(request, "train") for talk in talks])
    assert trained == (0 if partition == "shards:1" else trained)
    assert trained or partition == "shards:1"
    for shift in (0.0, -2.0):
        request = pb.ToClient(evaluate=talks[0].broadcast(1, shift))
        answers = [talk.say(request, "evaluate") for talk in talks]
        same_updates(talks, answers)
    scored = [a for a in answers[1] if a.WhichOneof("body") == "evaluation"]
    assert partition == "shards:1" or any(
        0 < a.evaluation.correct <= a.evaluation.examples for a in scored
    )


def test_with_few_labels_a_client_learns_from_its_labelled_images_alone(
    tiny: Make, tmp_path: Path
) -> None:
    settings = tiny(labels=36, partition="dirichlet:0.5")
    talks = both(settings, tmp_path)
    greeted = talks[0].hello()
    assert greeted == talks[1].hello()
    told = [
        task.train_examples for reply in greeted for task in reply.hello.tasks if task.task == 1
    ]
    assert sum(told) == 36
    ready(*talks)
    request = pb.ToClient(train=talks[0].broadcast())
    answers = [talk.say(request, "train") for talk in talks]
    examples = {a.update.examples for a in answers[0] if a.WhichOneof("body") == "update"}
    assert same_updates(talks, answers) >= 3
    assert examples <= set(told)
    request = pb.ToClient(evaluate=talks[0].broadcast(1, 0.1))
    same_updates(talks, [talk.say(request, "evaluate") for talk in talks])


def test_each_node_is_answered_by_what_it_was_told(tiny: Make, tmp_path: Path) -> None:
    talks = both(tiny(), tmp_path)
    replies = []
    for talk in talks:
        said = talk.say(pb.ToClient(train=talk.broadcast()))
        talk.deliver(nodes=[2, 3])
        said += talk.say(pb.ToClient(train=talk.broadcast()))
        talk.hello()
        said += talk.deliver(nodes=[4], flip=True)
        said += talk.say(pb.ToClient(train=talk.broadcast()))
        for task in (7, 9, 10):
            said += talk.say(pb.ToClient(train=talk.broadcast(task)), nodes=[2])
        replies.append(said)
    assert same_updates(talks, replies) == 2


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", pb.ToClient(train=pb.Broadcast())])
def test_what_is_no_message_is_refused_as_by_a_client(
    tiny: Make, tmp_path: Path, body: bytes | pb.ToClient
) -> None:
    talks = both(tiny(), tmp_path)
    ready(*talks)
    same_updates(talks, [talk.say(body) for talk in talks])


def test_broadcasts_that_nothing_can_be_trained_with_are_refused(
    tiny: Make, tmp_path: Path
) -> None:
    talks = both(tiny(), tmp_path)
    ready(*talks)
    replies: list[list[pb.ToServer]] = [[], []]
    for change in ({"epochs": 0}, {"bits": 9}, {"learning_rate": float("nan")}):
        broadcast = talks[0].broadcast()
        for name, value in change.items():
            setattr(broadcast.hyperparameters, name, value)
        for talk, said in zip(talks, replies, strict=True):
            said += talk.say(pb.ToClient(train=broadcast))
    broadcast = talks[0].broadcast()
    broadcast.coefficients = b"odd"
    for talk, said in zip(talks, replies, strict=True):
        said += talk.say(pb.ToClient(train=broadcast))
        said += talk.say(pb.ToClient(evaluate=broadcast))
    assert same_updates(talks, replies) == 0


def test_training_that_diverges_is_refused_as_by_a_client(tiny: Make, tmp_path: Path) -> None:
    talks = both(tiny(), tmp_path)
    ready(*talks)
    broadcast = talks[0].broadcast()
    broadcast.hyperparameters.learning_rate = 1e30
    replies = [talk.say(pb.ToClient(train=broadcast)) for talk in talks]
    assert same_updates(talks, replies) == 0


def test_the_chunk_changes_no_answer(tiny: Make, tmp_path: Path) -> None:
    _, whole = both(tiny(), tmp_path)
    _, single = both(tiny(), tmp_path, FoldedOptions(chunk=1))
    talks = whole, single
    ready(*talks)
    request = pb.ToClient(train=whole.broadcast())
    assert same_updates(talks, [talk.say(request) for talk in talks]) == CLIENTS


@pytest.mark.parametrize("nodes", [[3], [5, 2]])
def test_who_else_is_asked_changes_no_answer(tiny: Make, tmp_path: Path, nodes: list[int]) -> None:
    _, talk = both(tiny(), tmp_path)
    ready(talk)
    request = pb.ToClient(train=talk.broadcast())
    every = talk.say(request)
    some = talk.say(request, nodes=nodes)
    assert same_updates((talk, talk), [[every[node - 1] for node in nodes], some]) == len(nodes)


def learned(grid: Grid, settings: Settings, folder: Path) -> list[object]:
    run_federation(grid, settings, folder, LogObserver())
    with Registry(folder / "registry.sqlite") as registry:
        rounds = [r for task in registry.tasks(1) for r in registry.rounds(1, task.number)]
        return [
            [(r.clients, r.examples) for r in rounds],
            [(a.task, a.accuracy, a.head_only_accuracy) for a in registry.accuracies(1)],
            [registry.coefficients(1, task.number) for task in registry.tasks(1)],
        ]


@pytest.mark.parametrize("method", ["recast", "head-only", "norm-affine", "lora:1:*conv1", "full"])
def test_a_federation_leaves_the_same_registry_as_one_client_after_another(
    tiny: Make, tmp_path: Path, method: str
) -> None:
    settings = tiny(rounds=2, epochs=2, batch=8, partition="dirichlet:0.5", bits=16, method=method)
    answered = [0, 0]

    def count(which: int) -> Callable[[], None]:
        def one() -> None:
            answered[which] += 1

        return one

    sequential = SequentialGrid(CLIENTS, app, settings, tmp_path / "c", count(0))
    folded = FoldedGrid(CLIENTS, settings, count(1))
    one = learned(sequential, settings, tmp_path / "one")
    other = learned(folded, settings, tmp_path / "two")
    assert one[:2] == other[:2]
    for a, b in zip(one[2], other[2], strict=True):  # type: ignore[call-overload]
        np.testing.assert_array_equal(a, b)
    assert answered[0] == answered[1] == folded.time.clients
    assert (folded.time.training > 0) == (method != "head-only")


def test_the_same_seed_gives_the_same_bytes(tiny: Make, tmp_path: Path) -> None:
    settings = tiny()
    runs = []
    for _ in range(2):
        talk = Talk(FoldedGrid(CLIENTS, settings), settings)
        ready(talk)
        replies = talk.say(pb.ToClient(train=talk.broadcast()))
        runs.append([reply.SerializeToString() for reply in replies])
    assert runs[0] == runs[1]


def test_no_file_is_written_and_images_are_held_once(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, talk = both(tiny(), tmp_path)
    ready(talk)
    talk.say(pb.ToClient(train=talk.broadcast()))
    assert isinstance(talk.grid, FoldedGrid)
    (first, _) = talk.grid.held.tasks.values()
    nodes = [first.node(number) for number in range(CLIENTS)]
    rows = torch.cat([part for n in nodes for part in (n.learn, n.judge)])
    assert sorted(rows.tolist()) == list(range(len(first.images)))
    assert not list(tmp_path.iterdir())


numbers = st.integers(0, 2**32 - 1)
broadcasts = st.builds(
    pb.Broadcast, task=st.sampled_from([1, 2, 7]), round=numbers, scale=st.floats(width=32),
    coefficients=st.binary(max_size=40), bits=st.integers(0, 40), head_kind=st.integers(0, 7),
    head=st.binary(max_size=60), start_head=st.binary(max_size=60), counted=numbers,
)  # fmt: skip


def test_whatever_a_server_sends_is_answered_as_by_a_client(tiny: Make, tmp_path: Path) -> None:
    talks = both(tiny(), tmp_path)
    ready(*talks)
    prefix = talks[0].bank.prefix

    @given(broadcasts, st.sampled_from(["train", "head", "evaluate"]), st.booleans())
    @examples(40)
    def same(broadcast: pb.Broadcast, kind: str, known: bool) -> None:
        broadcast.bank = prefix if known else 7
        message = pb.ToClient(**{kind: broadcast})
        said = [talk.say(message, nodes=[1, 4]) for talk in talks]
        assert all(reply.WhichOneof("body") for reply in said[0])
        same_updates(talks, said)

    same()


@given(st.binary(max_size=80))
@examples(40, shared=True)
def test_noise_is_refused_as_by_a_client(tiny: Make, tmp_path: Path, noise: bytes) -> None:
    talks = both(tiny(), tmp_path)
    said = [talk.say(noise, nodes=[1]) for talk in talks]
    assert same_updates(talks, said) == 0
