"""The evaluate phase: what a task's coefficients are worth on the clients' own test images.

Every node that has test images of the task is asked, whatever was sampled to train it, once after
the task's last round, where the run is told so after every so many before it, and once more when
all tasks are learned. The accuracy is over all who answer before the quorum, or the deadline,
closes it: weighted by test images, and the median of clients.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.text import how_many
from recast_core.wire.messages import RefusedError
from server.exchange.traffic import Topic
from server.record.rows import Measured
from server.rounds.checks import check_evaluation
from server.rounds.federation import Federation
from server.rounds.state import TaskState
from server.rounds.tally import Tally

logger = logging.getLogger("recast.server")


class Evaluating:
    """Evaluates several tasks at once."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._asked: dict[int, list[int]] = {}

    def questions(self, grid: Grid, states: Sequence[TaskState]) -> Iterator[Message]:
        """Each task's coefficients, and a head that travels, to every node that can evaluate it.

        What they need is prepared now, each message when its turn comes.
        """
        federation = self._federation
        federation.heads.gather(grid, federation.exchange, states, federation.roster.nodes)
        self._asked = {}
        planned: list[tuple[pb.ToClient, TaskState, Topic]] = []
        for state in states:
            if head := federation.heads.merged(state.number):
                federation.registry.keep_head(
                    federation.run, state.number, federation.heads.kind, head
                )
            body = federation.broadcast(state, state.round, train=False)
            self._asked[state.number] = [
                node
                for node, share in federation.shares(state.number)
                if federation.heads.can_evaluate(state.number, share)
            ]
            planned.append((body, state, Topic(state.name, state.round)))
        return (message for one in planned for message in self._sent(grid, *one))

    def _sent(
        self, grid: Grid, body: pb.ToClient, state: TaskState, topic: Topic
    ) -> Iterator[Message]:
        if self._federation.heads.earlier is None:
            nodes = self._asked[state.number]
            yield from self._federation.traffic.send_all(nodes, body, topic, grid)
            return
        for node in self._asked[state.number]:
            self._federation.tell_head(body.evaluate, node)
            yield self._federation.traffic.send(node, body, topic)

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
        federation = self._federation
        answers = self._answers(states, replies)
        rows = []
        for state in states:
            told = list(answers[state.number].values())
            federation.answered(
                state.number, self._asked.get(state.number, ()), answers[state.number]
            )
            examples = sum(answer.examples for answer in told)
            if examples:
                asked = federation.broadcast(state, state.round, train=False).evaluate
                tally = Tally(told, federation.plan.max_weight)
                head_only = tally.weighted("head_only_correct")
                rows.append(
                    Measured(
                        state.number,
                        state.round,
                        tally.weighted("correct"),
                        head_only if federation.heads.measures_baseline(asked) else None,
                        examples,
                        len(told),
                        (after or state).number,
                        tally.baselines() if federation.heads.stays(state.number) else {},
                        tally.median("correct"),
                    )
                )
        on_the_way = [row for row in rows if after is None and row.round < federation.plan.rounds]
        rows = [row for row in rows if row not in on_the_way]
        federation.registry.record_accuracies(
            federation.run,
            rows,
            federation.ledger.drain(),
            federation.ledger.drain_refusals(),
            on_the_way,
        )
        names = {state.number: state.name for state in states}
        for row in on_the_way:
            text = "task %s round %d: accuracy %.2f %% (%s)"
            whose = how_many(row.clients, "client")
            logger.info(text, names[row.task], row.round, 100 * row.accuracy, whose)
        for row in rows if after is None else []:
            without = max(row.baselines.values(), default=row.head_only_accuracy)
            federation.observer.evaluated(names[row.task], row.accuracy, without, row.clients)
        return {row.task: row.accuracy for row in [*rows, *on_the_way]}

    def _answers(
        self, states: Sequence[TaskState], replies: Iterable[Message]
    ) -> dict[int, dict[int, pb.Evaluation]]:
        """Each node's, by the task's number."""
        federation = self._federation
        topic = Topic(states[0].name, states[0].round) if len(states) == 1 else Topic()
        rounds = {state.number: state.round for state in states}
        answers: dict[int, dict[int, pb.Evaluation]] = {number: {} for number in rounds}
        for answer in federation.traffic.receive(replies, topic, "evaluation"):
            found = answer.body.evaluation
            try:
                share = federation.roster.nodes.get(answer.node, {}).get(found.task)
                check_evaluation(federation.start, found, rounds.get(found.task), share)
                if answer.node in answers[found.task]:
                    raise RefusedError("replayed", "a second evaluation of one task")
            except RefusedError as refused:
                federation.traffic.refuse(answer.node, answer.topic, refused.reason, str(refused))
            else:
                answers[found.task][answer.node] = found
        return answers
