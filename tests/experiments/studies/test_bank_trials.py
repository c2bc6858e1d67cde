"""The study of bank trials: the same test images judge, whatever was learned from."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from client.data import load_dataset, parse_task
from experiments.studies import bank_trials
from recast_core.sources.held_out_shifts import Gain, Trial

TASKS = "fog=digits[90%:]+fog:2 rain=digits[90%:]+rain:2"


def test_all_labels_and_few_are_judged_by_the_tasks_own_test_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, Tensor, Tensor]] = []

    def tried(
        _net: object, _head: object, _bank: object, trials: Sequence[Trial], *_: object
    ) -> list[Gain]:
        for one in trials:
            assert one.learn is not None
            seen.append((one.name, one.learn, one.images(), one.labels))
        return [Gain(one.name, 0.1, 0.2, 0.3 + len(one.labels) / 1e6, 0.5) for one in trials]

    monkeypatch.setattr(bank_trials, "held_out_gains", tried)
    bank_trials.main(["--tasks", TASKS, "--labels", "20", "--seeds", "0", "1"])
    data = load_dataset(parse_task("digits[90%:]+fog:2"), 32)
    fog = [each[1:] for each in seen if each[0] == "fog"]
    assert [count for count, _, _ in fog] == 2 * [len(data.y_train), 20]
    for count, images, labels in fog:
        assert torch.equal(labels[count:], torch.from_numpy(data.y_test))
        assert torch.equal(images[count:], fog[0][1][fog[0][0] :])
    few = [labels[:20].tolist() for count, _, labels in fog if count == 20]
    assert few[0] != few[1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| fog | 10.0 | 20.0 | 30.1 | 50.0 | 30.0 | 50.0 |"
    assert len(lines) == 4
