"""The evaluate phase: what a task's coefficients are worth on the clients' own test images.

Every node that has test images of the task is asked, whatever was sampled to train it, once after
the task's last round and once more when all tasks are learned. A quorum does not apply: the
accuracy is over all who answer before the deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.wire.messages import RefusedError
from server.exchange.traffic import Topic
from server.record.tables import Measured
from server.rounds.checks import check_evaluation
from server.rounds.federation import Federation, TaskState
from server.rounds.gathering import Learned


class Evaluating:
    """Evaluates several tasks at once."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def questions(self, grid: Grid, states: Sequence[TaskState]) -> list[Message]:
        """Each task's coefficients, and a head that travels, to every node that can evaluate it."""
        made = self._federation
        learned = [Learned(state.number, state.name, state.round, state.vector) for state in states]
        made.heads.gather(grid, made.bank, learned, made.roster.nodes, made.traffic, made.collector)
        return [
            made.traffic.send(node, body, Topic(state.name, state.round))
            for state in states
            for body in [made.broadcast(state, state.round, train=False)]
            for node, share in made.shares(state.number)
            if made.heads.can_evaluate(state.number, share)
        ]

    def finish(
        self,
        states: Sequence[TaskState],
        replies: Iterable[Message],
        after: TaskState | None = None,
    ) -> dict[int, float]:
        """Record the tasks' accuracies, as of learning ``after`` (itself where ``None``).

        Returns:
            Accuracies by the tasks' numbers, where anybody has answered.
        """
        made = self._federation
        answers = self._answers(states, replies)
        rows = []
        for state in states:
            told = answers[state.number]
            examples = sum(answer.examples for answer in told)
            if examples:
                asked = made.broadcast(state, state.round, train=False).evaluate
                head_only = sum(answer.head_only_correct for answer in told) / examples
                rows.append(
                    Measured(
                        state.number,
                        state.round,
                        sum(answer.correct for answer in told) / examples,
                        head_only if made.heads.measures_baseline(asked) else None,
                        examples,
                        len(told),
                        (after or state).number,
                    )
                )
        made.registry.record_accuracies(
            made.run, rows, made.ledger.drain(), made.ledger.drain_refusals()
        )
        names = {state.number: state.name for state in states}
        for row in rows if after is None else []:
            made.observer.evaluated(
                names[row.task], row.accuracy, row.head_only_accuracy, row.clients
            )
        return {row.task: row.accuracy for row in rows}

    def _answers(
        self, states: Sequence[TaskState], replies: Iterable[Message]
    ) -> dict[int, list[pb.Evaluation]]:
        made = self._federation
        topic = Topic(states[0].name, states[0].round) if len(states) == 1 else Topic()
        rounds = {state.number: state.round for state in states}
        answers: dict[int, dict[int, pb.Evaluation]] = {number: {} for number in rounds}
        for answer in made.traffic.receive(replies, topic, "evaluation"):
            found = answer.body.evaluation
            try:
                share = made.roster.nodes.get(answer.node, {}).get(found.task)
                check_evaluation(made.bank, found, rounds.get(found.task), share)
                if answer.node in answers[found.task]:
                    raise RefusedError("replayed", "a second evaluation of one task")
            except RefusedError as refused:
                made.traffic.refuse(answer.node, answer.topic, refused.reason, str(refused))
            else:
                answers[found.task][answer.node] = found
        return {number: list(told.values()) for number, told in answers.items()}
