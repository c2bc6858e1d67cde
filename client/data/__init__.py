"""Tasks and their images: what a task is, where its data come from, and each client's share."""

from client.data.arrays import UNLABELLED, ClientData, Dataset
from client.data.folder import folder_task_data
from client.data.labelling import known_labels
from client.data.partitioning import (
    forget_shares,
    parse_scheme,
    partition,
    shares,
    split,
    split_test,
)
from client.data.sources import default_root, forget_datasets, known_classes, load_dataset
from client.data.transforms import TRANSFORMS
from recast_core.task_spec import TaskSpec, check_task_name, parse_task, parse_tasks

__all__ = [
    "TRANSFORMS",
    "UNLABELLED",
    "ClientData",
    "Dataset",
    "TaskSpec",
    "check_task_name",
    "default_root",
    "folder_task_data",
    "forget_datasets",
    "forget_shares",
    "known_classes",
    "known_labels",
    "load_dataset",
    "parse_scheme",
    "parse_task",
    "parse_tasks",
    "partition",
    "shares",
    "split",
    "split_test",
]
