"""What a client that takes no part says of its folder, and to whom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.alone import Alone
from client.answer import answer
from client.asked import Asked
from client.data.folder import drifted_name
from client.node import Node
from client.turn import take
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.settings import Settings

TASK = pb.Task(id=1, name="flowers")


def _greeted(folder: Path) -> pb.Hello:
    settings = Settings(backbone="glyph_resnet20", tasks="digits", head="local")
    node = Node(0, folder.parent / "cache", folder, None, settings)
    bank = pb.BankRef(sha256=bytes(32), size=1)
    asked = pb.ToClient(hello=pb.HelloRequest(bank=bank, tasks=[TASK]))
    (body,) = take([answer(Asked(asked.SerializeToString()), node)], Alone())
    return body.hello


def _npz(file: Path, labels: list[int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
    np.savez(file, x_train=pixels, y_train=np.array(labels), classes=np.array(["a", "b"]))


def _link(folder: Path) -> None:
    (folder / "flowers.npz").symlink_to(folder / "gone.npz")


def _file(folder: Path) -> None:
    (folder / "flowers").write_text("")


def _unlabelled(folder: Path) -> None:
    _npz(folder / "flowers.npz", [-1] * 20)


def _folder(folder: Path) -> None:
    (folder / "flowers.npz").mkdir()


def _unreadable(folder: Path) -> None:
    (folder / "flowers" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "flowers" / "a" / "1.png")
    (folder / "flowers" / "a" / "Anna_Muster.png").write_bytes(b"")


def _twice(folder: Path) -> None:
    _npz(folder / "flowers@2.npz", [0, 1] * 9)
    _npz(folder / "flowers@02.npz", [0, 1] * 9)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_link, "(flowers.npz is a link to what is not there)"),
        (_file, "(flowers is a file: an archive is called flowers.npz)"),
        (_unlabelled, "none of its 20 training images has a label"),
        (_folder, "flowers.npz is a folder: call it flowers/"),
        (_unreadable, "cannot read 1 of the 2 images in flowers: repair"),
        (_twice, "flowers@02 and flowers@2 are both of round 2"),
    ],
)
def test_the_cause_is_named_and_the_server_is_told_neither_paths_nor_images_names(
    make: Callable[[Path], None], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "of the client"
    folder.mkdir()
    make(folder)
    with caplog.at_level(logging.WARNING, "recast"):
        hello = _greeted(folder)
    (lack,) = hello.lacks
    assert not hello.tasks
    assert says in lack.detail
    assert str(folder) not in lack.detail
    assert "Anna" not in lack.detail
    if make is _unreadable:
        assert f"{folder}/flowers: a/Anna_Muster.png (an empty file)" in caplog.text


def test_what_goes_by_no_round_is_said_to_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _npz(tmp_path / "flowers@x.npz", [0, 1] * 9)
    (tmp_path / "flowers@3.zip").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "recast.data"):
        assert drifted_name(tmp_path, "flowers", 5) == "flowers"
    names = ("flowers@x.npz", "flowers@3.zip")
    assert all(f"{name} is left out" in caplog.text for name in names)
    assert len([one for one in caplog.records if one.name == "recast.data"]) == 2


def test_an_error_tells_others_what_it_says_unless_it_says_more_to_the_user() -> None:
    assert RecastError("a cause: a remedy").told == "a cause: a remedy"
    assert RecastError("a name: a remedy", told="a remedy").told == "a remedy"
