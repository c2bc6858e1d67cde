"""The strategy of a federation: which tasks a round learns, and when the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from protos import recast_v1_pb2 as pb
from recast_core.start import Start
from server.exchange.carried import Airborne
from server.exchange.collect import Collector
from server.exchange.naming import names_of
from server.exchange.observer import Observer
from server.exchange.roster import Roster
from server.exchange.slices import ask
from server.exchange.traffic import Traffic, is_answer
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.rounds.agenda import Agenda
from server.rounds.attendance import await_clients, await_return
from server.rounds.evaluation import Evaluating
from server.rounds.federation import Federation
from server.rounds.gathering import Heads
from server.rounds.plan import RoundPlan
from server.rounds.private import privacy_of
from server.rounds.state import TaskState
from server.rounds.training import RETRIES, Training


class FedRecast(Strategy):
    """Federated averaging of coefficients, per task.

    Each round trains the tasks that ``active`` names, on every node that has data for one or on a
    sample of them; a task is evaluated after its last round. Tasks are those of the registry, which
    is read before each round, and so are the rounds that are finished already: a strategy for a run
    that was killed goes on where it had stopped. Arrays stay on the server: what travels are the
    messages of ``protos/``.
    """

    def __init__(
        self,
        start: Start,
        tasks: Sequence[pb.Task],
        plan: RoundPlan,
        registry: Registry,
        run: int,
        observer: Observer,
        heads: Heads | None = None,
    ) -> None:
        """Prepare to learn ``tasks`` in their order.

        Args:
            start: of the run.
            tasks: to enter in the registry where it lacks them; every client must be able to learn
                them, while those that are added later may wait for one.
            plan: how many rounds, and how they go.
            registry: of the run.
            run: its id.
            observer: is told of every round.
            heads: how tasks' heads are made; ``None`` for heads that stay on their clients.
        """
        self.plan = plan
        known = {task.name for task in registry.tasks(run)}
        for task in tasks:
            if task.name not in known:
                registry.add_task(run, task.name, source=task.source)
        ledger = Ledger(registry, summary=plan.summary)
        collector = Collector(plan.deadline, plan.quorum, lag=plan.max_lag)
        traffic = Traffic(ledger, observer, collector)
        self._federation = Federation(
            start=start,
            plan=plan,
            heads=heads or Heads(),
            registry=registry,
            run=run,
            observer=observer,
            ledger=ledger,
            traffic=traffic,
            collector=collector,
            roster=Roster(start, traffic, collector, observer),
            privacy=privacy_of(plan, start.sent, registry.spendings(run)),
        )
        self._training = Training(self._federation, expendable=len(tasks))
        self._evaluating = Evaluating(self._federation)
        self._agenda = Agenda(self._federation, required=len(tasks))
        self.states = self._agenda.states
        self._training_now: list[TaskState] = []
        self._grid: Grid | None = None
        self._finishing: list[TaskState] = []

    def active(self, server_round: int) -> list[TaskState]:
        """The tasks of a round: the first that have rounds left and a client to learn them."""
        return self._agenda.active()

    def rounds_left(self) -> int:
        """An upper bound of the rounds that the present tasks still take, retries included."""
        return (RETRIES + 1) * sum(
            self.plan.rounds - state.round for state in self._agenda.unfinished()
        )

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Learn until every task has its rounds, in at most ``num_rounds`` rounds of the server.

        The other arguments are Flower's: what it would do with them is the registry's here, but for
        ``evaluate_fn``, which is called after each round.

        Raises:
            RecastError: nobody is there, or a task cannot go on.
        """
        result, config, arrays = Result(), ConfigRecord(), initial_arrays
        for server_round in range(num_rounds + 1):
            if server_round:
                messages = self.configure_train(server_round, arrays, config, grid)
                if not self._training_now:
                    break
                replies = ask(
                    self._federation.collector,
                    grid,
                    messages,
                    lambda reply: is_answer(reply, "update", self._federation.longest_update),
                )
                arrays, metrics = self.aggregate_train(server_round, replies)
                result.arrays, result.train_metrics_clientapp[server_round] = arrays, metrics
            elif self._agenda.unevaluated():  # of a server that was killed before it came to that
                await_return(grid, self._federation, self._agenda)
            messages = self.configure_evaluate(server_round, arrays, config, grid)
            found = self.aggregate_evaluate(server_round, self._measure(grid, messages))
            if found is not None:
                result.evaluate_metrics_clientapp[server_round] = found
            if evaluate_fn and (own := evaluate_fn(server_round, arrays)) is not None:
                result.evaluate_metrics_serverapp[server_round] = own
        return result

    def initial_arrays(self) -> ArrayRecord:
        """Every task's coefficients by name, for ``start``."""
        return ArrayRecord({state.name: Array(state.vector) for state in self.states.values()})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A broadcast of each active task to the nodes that train it; none when all is learned.

        Raises:
            RecastError: no node is there, or none has data for a task.
        """
        self._grid, self._training_now = grid, []
        self._agenda.read()
        if not self._agenda.unfinished():
            return []
        await_clients(grid, self._federation, self._agenda)
        self._agenda.agree(grid, self.active(server_round))
        self._name_clients(grid)
        if not self._agenda.began:
            # What greeting cost, a bank to each above all, survives a server killed in its round.
            self.record_rest(grid)
        self._agenda.describe()
        self._agenda.keeping.check(self._agenda.unfinished())
        self._training_now = self.active(server_round)
        self._agenda.keeping.prepare(self._training_now)
        return self._training.questions(grid, self._training_now, list(self.states.values()))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Average each task's offsets, and record the round before anything else happens."""
        assert self._grid is not None
        examples = self._training.finish(self._grid, self._training_now, replies)
        self._record_air(self._grid)
        return self.initial_arrays(), MetricRecord({"examples": examples})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """An evaluation of each task that is due: after its last round, or on the way."""
        self._finishing = [*self._agenda.unevaluated(), *self._agenda.halfway()]
        self._agenda.agree(grid, self._finishing)
        return self._evaluating.questions(grid, self._finishing)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The accuracy over all test images of the clients, and that of the head alone."""
        if not self._finishing:
            return None
        accuracies = self._evaluating.finish(self._finishing, replies)
        for state in self._finishing:
            if state.round < self.plan.rounds:
                state.looked = state.round  # Once, whether or not anybody was there.
                continue
            # Nobody may have been there, as after a restart: it is asked for again.
            state.evaluated = state.number in accuracies
        found = accuracies.values()
        return MetricRecord({"accuracy": fmean(found)}) if found else None

    def _name_clients(self, grid: Grid) -> None:
        """Record the names of clients that are new, or have another."""
        made = self._federation
        names = names_of(grid, made.roster.numbers())
        if names != made.names:
            made.names.clear()
            made.names.update(names)
            made.registry.name_clients(made.run, names)

    def evaluate_again(self, grid: Grid) -> None:
        """Evaluate every task but the last once more: what learning the later ones changed.

        What the registry has of that already is not asked for again.
        """
        learned = [state for state in self.states.values() if state.round]
        if len(learned) < 2:
            return
        *earlier, last = learned
        measured = self._measured()
        self._federation.roster.refresh(grid)
        for state in earlier:
            if (state.number, last.number) in measured:
                continue
            self._agenda.agree(grid, [state])
            replies = self._measure(grid, self._evaluating.questions(grid, [state]))
            self._evaluating.finish([state], replies, after=last)

    def is_done(self) -> bool:
        """Whether the registry has all that there is to learn, and what is measured of it."""
        if self._agenda.unfinished():
            return False
        learned = [state for state in self.states.values() if state.round]
        wanted = {(one.number, learned[-1].number) for one in learned[:-1]}
        wanted |= {(one.number, one.number) for one in learned if one.round >= self.plan.rounds}
        return wanted <= self._measured()

    def _measured(self) -> set[tuple[int, int]]:
        """The tasks that were evaluated when learned, each with the one that had been learned last.

        The registry says so, and no state: a process may be told to end between the two.
        """
        return {
            (entry.task, entry.after_task)
            for entry in self._federation.registry.accuracies(self._federation.run)
            if entry.task != entry.after_task or entry.round >= self.plan.rounds
        }

    def unlearned(self) -> list[str]:
        """The names of the tasks that were given up, or that no client can learn."""
        return [state.name for state in self.states.values() if state.round < self.plan.rounds]

    def ready(self, grid: Grid) -> bool:
        """Whether there is something to learn and somebody to learn it, without waiting."""
        self._agenda.read()
        if self._agenda.unfinished():
            self._federation.roster.refresh(grid)
        return bool(self.active(0))

    def record_rest(self, grid: Grid | None = None, *, last: bool = False) -> None:
        """Record bytes and refusals that no round or evaluation has taken; at ``last`` all."""
        federation = self._federation
        if last:
            federation.traffic.give_up()
        federation.traffic.take_from(grid)
        rows, refusals = federation.ledger.drain(), federation.ledger.drain_refusals()
        if rows or refusals:
            federation.registry.record_traffic(federation.run, rows, refusals)
        self._record_air(grid)

    def _record_air(self, grid: Grid | None) -> None:
        """Record what a grid's clients took of the air, where they did."""
        if isinstance(grid, Airborne) and (rows := grid.take_air()):
            self._federation.registry.record_air(self._federation.run, rows)

    def summary(self) -> None:
        """Say nothing: the registry speaks."""

    def _measure(self, grid: Grid, messages: Iterable[Message]) -> Iterable[Message]:
        """Ask for evaluations."""
        return ask(
            self._federation.collector,
            grid,
            messages,
            lambda reply: is_answer(reply, "evaluation"),
            hurry=False,
        )
