"""What a worker holds, and how it does a parcel: as the folded engine does, among fewer clients."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch

from client.turn import Exam, Guess, Lesson, Look
from experiments.engines.crew.base import Item, Post
from experiments.engines.crew.parcels import pack_results, unpack
from experiments.engines.folded.data import Division, TaskImages
from experiments.engines.folded.nodes import Held
from experiments.engines.folded.together import TimeSplit, Together
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins
from recast_core.wire.messages import RefusedError


class Workshop:
    """Banks, images and the model, each once."""

    def __init__(self, post: Post) -> None:
        """Prepare to work at ``post``; the process is changed: its threads and module path."""
        if post.path:
            sys.path[:] = list(post.path)
        load_plugins()
        # A worker with one thread trains in it, and products on other devices take what there is.
        torch.set_num_threads(post.threads)
        self._held = Held(post.clients, post.settings, post.options)
        self._together = Together(TimeSplit(), lambda count: None)

    def place(self, item: Item) -> None:
        """Hold an item."""
        match item.kind:
            case "bank":
                self._held.receive(item.fields["content"], bytes.fromhex(item.name))
            case "method":
                self._held.learn_by(bytes.fromhex(item.name), item.fields["method"])
            case _:
                division = dict(item.arrays)
                images = torch.from_numpy(division.pop("images"))
                source, classes = item.fields["source"], item.fields["classes"]
                self._held.hold(TaskImages(images, classes, Division(**division), source=source))

    def work(self, content: bytes) -> bytes:
        """Do a parcel, see ``crew.parcels``."""
        parcel = unpack(content)
        try:
            model, task = self._held.model(parcel.model), self._held.images(parcel.source)
            works: list[Any] = []
            for number, one in zip(parcel.numbers, parcel.works, strict=True):
                data = task.node(number).in_task_ids(parcel.classes)
                works.append(replace(one, model=model, data=data))
            match parcel.works[0]:
                case Lesson():
                    return pack_results(self._together.train(works))
                case Look():
                    return pack_results(self._together.features(works))
                case Exam():
                    return pack_results(self._together.examine(works))
                case Guess():
                    return pack_results(self._together.guess(works))
        except (RefusedError, RecastError) as error:
            return pack_results(error)
