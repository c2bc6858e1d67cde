"""Files that others hand over: a pipe or a device in the place of one ends in one line, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.command.config_file import read_config
from experiments.report.points import read_points
from recast_core import RecastError, TaskLibrary, TemplateBank, TemplateGroup
from recast_core.files import check_writable, read_bytes, read_text
from server.record.history import History
from server.record.registry import Registry
from server.record.secret import NAME, sampling_secret


def _bank() -> TemplateBank:
    import torch

    group = TemplateGroup("g", ("m",), "weight", (0,), torch.eye(2, 3))
    return TemplateBank((group,), (torch.zeros(2),))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bank": ("x.safetensors", TemplateBank.load),
    "library": ("x.task.safetensors", lambda path: TaskLibrary.load(path.parent, _bank())),
    "config": ("x.toml", lambda path: read_config(str(path), "simulate", {})),
    "points": ("x.json", read_points),
    "secret": (NAME, lambda path: sampling_secret(path.parent)),
    "registry": ("registry.sqlite", Registry),
    "registry to read": ("registry.sqlite", lambda path: History(path, read_only=True)),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("what", READERS)
def test_what_is_no_regular_file_is_refused_in_one_line(
    what: str, kind: str, tmp_path: Path
) -> None:
    name, read = READERS[what]
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(RecastError, match="regular file") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_regular_file_is_read_whole_through_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xc3\xa9\r\n\x00")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "b") == b"\xc3\xa9\r\n\x00"
    assert read_text(tmp_path / "b") == "\xe9\n\x00"
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "1", "-5", "g" * 32, "0" * 31, "0" * 33, "0x" + "0" * 30])
def test_a_secret_that_could_be_guessed_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(RecastError, match="delete it"):
        sampling_secret(tmp_path)


def test_a_secret_is_kept_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    first = sampling_secret(tmp_path)
    assert sampling_secret(tmp_path) == first
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["x.toml", "x.json"])
def test_a_file_of_endless_depth_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(("a = " if name == "x.toml" else "") + "[" * 200_000)
    with pytest.raises(RecastError) as caught:
        READERS["config" if name == "x.toml" else "points"][1](path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_no_file_can_have_is_one_line_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecastError, match=r"cannot write .*; choose another name") as error:
        check_writable(tmp_path / ("x" * 300))
    assert "\n" not in str(error.value)
