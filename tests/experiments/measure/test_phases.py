"""Where a run passes from one phase to the next."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from experiments.measure.phases import PhaseClock, watch
from experiments.measure.relay import Counted
from server.record.registry import Registry
from server.record.rows import FinishedRound, Measured


def test_a_phase_ends_when_it_was_recorded_however_late_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = 1_700_000_000
    # The bank, rounds, two evaluations, and what is said at the end.
    passed = [began + second for second in (1, 10, 20, 30, 40, 45, 46)]

    class Passed:
        """A relay over which a byte went up at each of these seconds."""

        def counted_at(self, moment: int) -> Counted:
            return Counted(sum(second * 10**9 <= moment for second in passed), 0, 1)

        def counted(self) -> Counted:
            return self.counted_at(2**63)

    class Over:
        """A run that has ended before anybody looked."""

        def running(self) -> bool:
            return False

    path = tmp_path / "registry.sqlite"
    clock = PhaseClock([Passed()])  # type: ignore[list-item]
    clock._last = (Counted(),)
    with Registry(path) as registry:
        run = registry.start_run({}, bytes(32), {})
        registry.add_task(run, "a", 2)

        def it_is(second: float) -> None:
            at = datetime.fromtimestamp(began + second, UTC)
            monkeypatch.setattr("server.record.registry.now", at.isoformat)

        for number in (1, 2, 3):
            it_is(10 * number + 5)
            found = FinishedRound(1, number, np.zeros(2, np.float32), 1, 1, 7.0)
            registry.record_rounds(run, [found], [])
        for second in (44, 45.5):
            it_is(second)
            registry.record_accuracies(run, [Measured(1, 3, 0.5, 0.4, 1, 1, 1)])
        registry.finish_run(run, "finished")
    watch(Over(), clock, path, lambda line: None)  # type: ignore[arg-type]
    rounds, evaluations = ["coefficients"] * 3, ["metrics"] * 2
    kinds = ["bank", *rounds, *evaluations, "control"]
    assert [phase.kind for phase in clock.phases] == kinds
    assert [phase.counted[0].up for phase in clock.phases] == [1, 1, 1, 1, 1, 1, 1]
