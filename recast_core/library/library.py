"""``TaskLibrary``: many tasks over one backbone and one bank."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.files import read_bytes, write_atomically
from recast_core.library.export import in_place_of, state_bytes
from recast_core.library.mixed import mixed_features
from recast_core.library.pretrained import (
    TASKS,
    About,
    download,
    read_pretrained,
    save_pretrained,
    upload,
)
from recast_core.library.task import SUFFIX, SavedTask, make_task
from recast_core.model import RecastModel

# Inside the class, ``list`` is its method.
Names = list[str]
Logits = list[Tensor]
Rows = list[int]


class TaskLibrary:
    """The tasks learned with one bank, by name.

        tasks.add("flowers", net.coefficients.sent(), head, classes=names)
        tasks.save("my-tasks")
        tasks = TaskLibrary.load("my-tasks", bank)
        tasks.activate(net, "flowers")

    A task is the coefficients and a linear head, a few kilobytes. Nothing of it lies in the
    backbone, so adding or training another task cannot change what this one predicts.
    """

    def __init__(self, bank: TemplateBank) -> None:
        """An empty library for ``bank``."""
        self.bank, self.about = bank, About()
        self._tasks: dict[str, SavedTask] = {}

    def __repr__(self) -> str:
        return f"TaskLibrary({self.list()}, bank {self.bank.sha256.hex()[:8]})"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __getitem__(self, name: str) -> SavedTask:
        """The task of this name.

        Raises:
            RecastError: there is none; names near ones.
        """
        if name not in self._tasks:
            near = difflib.get_close_matches(name, self._tasks, n=3, cutoff=0.4) or list(self)[:3]
            known = f"choose {', '.join(near)}" if near else "add one first"
            raise RecastError(f"no task {name!r} in the library of {len(self)}: {known}")
        return self._tasks[name]

    def list(self) -> Names:
        """The names of the tasks in the order in which they were added."""
        return [*self._tasks]

    def add(
        self,
        name: str,
        coefficients: Tensor,
        head: nn.Linear,
        classes: Sequence[str] | None = None,
    ) -> SavedTask:
        """Keep a task.

        Args:
            name: not in the library yet.
            coefficients: ``[D]`` as they are sent (``net.coefficients.sent()``); copied.
            head: ``Linear(d, C)``; copied.
            classes: names of its C classes.

        Raises:
            RecastError: the name is taken, shapes do not fit, or numbers are not finite.
        """
        if name in self._tasks:
            raise RecastError(f"task {name!r} is in the library already: remove() it first")
        if not isinstance(head, nn.Linear):
            raise RecastError(
                f"the head of task {name!r} is a {type(head).__name__}: give an nn.Linear"
            )
        bias: Tensor | None = head.bias
        self._tasks[name] = make_task(name, coefficients, head.weight, bias, classes, self.bank)
        return self._tasks[name]

    def remove(self, name: str) -> None:
        """Forget a task; a file of it stays where it is."""
        self[name]
        del self._tasks[name]

    def save(self, folder: Path | str) -> None:
        """Write each task to a file of its own in ``folder``, each atomically.

        Raises:
            RecastError: the folder cannot be written.
        """
        for task in self._tasks.values():
            task.save(Path(folder), self.bank)

    @classmethod
    def load(cls, folder: Path | str, bank: TemplateBank) -> TaskLibrary:
        """Every task in ``folder``, bit for bit as it was saved, in order of file name.

        Raises:
            RecastError: no such folder, a corrupt file, or a task of another bank; names the file.
        """
        folder, library = Path(folder), cls(bank)
        try:
            paths = sorted(p for p in folder.iterdir() if p.suffix == SUFFIX and p.name[0] != ".")
            for path in paths:
                task = SavedTask.from_bytes(read_bytes(path), bank, str(path))
                if task.name in library._tasks:
                    raise RecastError(f"{path} holds task {task.name!r} again: delete one file")
                library._tasks[task.name] = task
        except OSError as error:
            raise RecastError(
                f"cannot read the tasks in {folder}: {error.strerror or error}; give the folder "
                "that save() wrote"
            ) from error
        return library

    def save_pretrained(self, folder: Path | str, about: About | None = None) -> None:
        """Write the library with its bank and a model card to a folder that says all of itself.

        Args:
            folder: of this library alone.
            about: backbone, licence and figures; what the library was read with where ``None``.

        Raises:
            RecastError: figures of an unknown task, or a folder that cannot be written.
        """
        self.about = about or self.about
        save_pretrained(self, Path(folder), self.about)

    @classmethod
    def from_pretrained(cls, name: Path | str, revision: str | None = None) -> TaskLibrary:
        """The library in a folder, or on Hugging Face's hub as ``OWNER/NAME``.

        Raises:
            RecastError: neither, or one that is damaged.
        """
        folder = download(str(name), revision)
        bank, about = read_pretrained(folder)
        library = cls.load(folder / TASKS, bank)
        library.about = about
        return library

    def push_to_hub(self, name: str, about: About | None = None, *, private: bool = True) -> str:
        """Put the library on Hugging Face's hub as ``OWNER/NAME``; its address. Raises likewise."""
        with tempfile.TemporaryDirectory(prefix="recast-") as folder:
            self.save_pretrained(folder, about)
            return upload(Path(folder), name, private=private)

    def activate(self, net: RecastModel, name: str) -> None:
        """Give ``net`` the coefficients and the head of a task, in place, for all threads.

        Threads or coroutines that need different tasks of one model ``use`` them: answers that
        another one's ``activate`` came between raise.

        Raises:
            RecastError: no such task, or ``net`` has another bank.
        """
        task = self[name]
        self._check(net)
        head = task.head(net.device)
        with net.coefficients.turns.changing():
            net.coefficients.load(task.coefficients)
            net.head = head

    @contextmanager
    def use(self, net: RecastModel, name: str) -> Iterator[RecastModel]:
        """Answer as a task within the block, in this thread or coroutine alone.

        Nothing in ``net`` is written, so that threads may share it, each with its own task:

            with tasks.use(net, "flowers"):
                logits = net(images)

        A thread started within or one of a pool (``executor.submit``, ``run_in_executor``) needs
        its own; ``asyncio.to_thread`` takes it along. A generator shows it to its taker.

        Raises:
            RecastError: no such task, or ``net`` has another bank.
        """
        task = self[name]
        self._check(net)
        with net.using(task.coefficients, task.head(net.device)):
            yield net

    def deactivate(self, net: RecastModel) -> None:
        """Give ``net`` back the backbone's own head and the bank's start ``c0``, in place."""
        self._check(net)
        with net.coefficients.turns.changing():
            net.coefficients.load()
            net.head = net.own_head

    @torch.no_grad()
    def mixed(self, net: RecastModel, images: Tensor, tasks: Sequence[str]) -> Logits:
        """Logits of a batch whose rows belong to different tasks, in one forward pass.

        The rows of a task meet that task's coefficients and head. Nothing in ``net`` is written:
        other threads may use it meanwhile.

        Args:
            net: attached with this library's bank, in evaluation mode.
            images: ``[N, 3, H, W]`` on the device of ``net``.
            tasks: the task of each row.

        Returns:
            For each row, in the order given, logits ``[C]`` of its own task.

        Raises:
            RecastError: an unknown task, or not one name a row.
        """
        if len(tasks) != len(images):
            raise RecastError(f"{len(images)} images and {len(tasks)} task names: give one a row")
        self._check(net)
        rows: dict[str, Rows] = {}
        for index, name in enumerate(tasks):
            rows.setdefault(name, []).append(index)
        chosen = {name: self[name] for name in rows}
        vectors = [chosen[name].coefficients for name in rows]
        features = mixed_features(net, images, vectors, [*rows.values()])
        logits: Logits = [features.new_empty(0)] * len(tasks)
        # One gather for all tasks: on a GPU an index of its own for each would wait each time.
        order = [index for where in rows.values() for index in where]
        gathered = features[torch.tensor(order, dtype=torch.long, device=net.device)]
        parts = gathered.split([len(where) for where in rows.values()])
        for (name, where), part in zip(rows.items(), parts, strict=True):
            scores = chosen[name].head(net.device)(part)
            for index, row in zip(where, scores.unbind(), strict=True):
                logits[index] = row
        return logits

    def export(
        self,
        net: RecastModel,
        name: str,
        path: Path | str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> nn.Module:
        """A plain PyTorch model of one task, with no trace of RECAST; ``net`` is left alone.

        A state dict of the model has the names and shapes of the backbone's own with another
        number of classes, so that ``recast_core.backbones.load_backbone("file:PATH")`` and the
        backbone's own class load it.

        Args:
            net: attached with this library's bank.
            name: of the task.
            path: write the state dict there too: ``.safetensors``, or ``.pt``/``.pth`` (tensors
                alone, for ``torch.load(..., weights_only=True)``).
            metadata: further entries for the header of a safetensors file.

        Raises:
            RecastError: no such task, another suffix, or a path that cannot be written.
        """
        task = self[name]
        self._check(net)
        if path is not None and Path(path).suffix not in (".safetensors", ".pt", ".pth"):
            raise RecastError(
                f"cannot export to {path}: name a file that ends in .safetensors, .pt or .pth"
            )
        clone = net.copy()
        clone.coefficients.load(task.coefficients)
        clone.head = in_place_of(net.own_head, task.head(net.device))
        model = clone.merge()
        if path is not None:
            write_atomically(Path(path), state_bytes(model, Path(path).suffix, metadata))
        return model

    def _check(self, net: RecastModel) -> None:
        if net.bank is not self.bank and net.bank.sha256 != self.bank.sha256:
            raise RecastError(
                f"the model has bank {net.bank.sha256.hex()[:8]}, the library "
                f"{self.bank.sha256.hex()[:8]}: attach the library's bank"
            )
