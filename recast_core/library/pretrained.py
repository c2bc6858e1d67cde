"""A library as a folder that says all of itself, on a disk or on Hugging Face's hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recast_core.bank import TemplateBank
from recast_core.errors import RecastError, in_a_line
from recast_core.files import read_text, write_atomically
from recast_core.library.card import card

if TYPE_CHECKING:
    from recast_core.library.library import TaskLibrary

FORMAT = "recast.library/1"
ABOUT, BANK, TASKS, CARD = "recast.json", "bank.safetensors", "tasks", "README.md"
_FILES = (ABOUT, BANK, f"{TASKS}/*.safetensors", CARD)


@dataclass(frozen=True)
class About:
    """What a folder says of its library besides bank and tasks.

    Attributes:
        backbone: the specification that ``load_backbone`` takes; empty where nobody said it.
        licence: an identifier of SPDX, such as ``apache-2.0``; empty where nobody said it.
        figures: numbers by task, such as ``{"flowers": {"accuracy": 0.91}}``.
    """

    backbone: str = ""
    licence: str = ""
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def save_pretrained(library: TaskLibrary, folder: Path, about: About) -> None:
    """Write bank, tasks, what is said of them, and a model card.

    Raises:
        RecastError: figures of a task that is not there, or a folder that cannot be written or
            holds the library of another bank.
    """
    if unknown := sorted(about.figures.keys() - {*library}):
        library[unknown[0]]  # raises, and names near ones
    if (folder / ABOUT).exists() and _read(folder)["bank"] != library.bank.sha256.hex():
        raise RecastError(f"{folder} holds the tasks of another bank: name another folder")
    library.bank.save(folder / BANK)
    library.save(folder / TASKS)
    text = {"format": FORMAT, "bank": library.bank.sha256.hex(), **asdict(about)}
    write_atomically(folder / ABOUT, (json.dumps(text, indent=2) + "\n").encode())
    write_atomically(folder / CARD, card(library, about).encode())


def read_pretrained(folder: Path) -> tuple[TemplateBank, About]:
    """The bank of a folder, verified, and what the folder says.

    Raises:
        RecastError: no such folder, one of another format, or a bank that is not the one it names.
    """
    found = _read(folder)
    bank = TemplateBank.load(folder / BANK, bytes.fromhex(found["bank"]))
    return bank, About(found["backbone"], found["licence"], found["figures"])


def download(name: str, revision: str | None) -> Path:
    """The folder of a library: ``name`` itself, or what the hub has under this name.

    Raises:
        RecastError: neither, or no huggingface_hub to look there.
    """
    if (folder := Path(name).expanduser()).is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise RecastError(f"no folder {name}: give one that save_pretrained() wrote, or OWNER/NAME")
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[*_FILES]))
    except Exception as error:  # a library's many kinds
        raise RecastError(
            f"cannot fetch {name} from the hub ({in_a_line(error, 200)}): look the name up, or "
            "give a folder"
        ) from error


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put a folder that ``save_pretrained`` wrote on the hub; its address.

    Raises:
        RecastError: no huggingface_hub, or the hub refuses.
    """
    hub = _hub()
    try:
        api = hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=name,
                folder_path=str(folder),
                allow_patterns=[*_FILES],
                commit_message="Tasks learned with recast",
            )
        )
    except Exception as error:  # a library's many kinds
        raise RecastError(
            f"cannot push to {name} on the hub ({in_a_line(error, 200)}): log in with "
            "`hf auth login`"
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    try:
        found = json.loads(read_text(path))
        if found["format"] != FORMAT:
            raise RecastError(f"{path} has format {found['format']!r}: upgrade recast")
        wanted: Sequence[tuple[str, type]] = (
            ("bank", str), ("backbone", str), ("licence", str), ("figures", dict),
        )  # fmt: skip
        for key, kind in wanted:
            if not isinstance(found[key], kind):
                raise TypeError(f"{key} is a {type(found[key]).__name__}")
        bytes.fromhex(found["bank"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecastError(
            f"cannot read {path} ({in_a_line(error, 200)}): give the folder that "
            "save_pretrained() wrote"
        ) from error
    assert isinstance(found, dict)
    return found


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise RecastError(
            "the hub needs huggingface_hub: `pip install 'recast-fl[hub]'`, or give a folder"
        ) from error
    return huggingface_hub
