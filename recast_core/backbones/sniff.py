"""What a file that should hold weights is instead, by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

_TAR = slice(257, 262)
# What begins a file, what that makes it, and what to do about it.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run git lfs pull there"),
    (b"/annex/objects/", "a git-annex pointer, not the weights", "run git annex get there"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it with gunzip"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"\x89HDF", "an HDF5 file, as Keras writes", "save a torch state_dict()"),
    (b"\x93NUMPY", "a NumPy array", "save a torch state_dict()"),
    *(
        (b"\x80" + bytes([n]), "a pickle of Python's, not of torch", "save a torch state_dict()")
        for n in (3, 4, 5)
    ),
    (b"GGUF", "a GGUF file", "save a torch state_dict()"),
    (b"%PDF", "a PDF", "download the weights"),
    (b"\x89PNG", "a PNG image", "download the weights"),
)


def foreign(path: Path) -> str | None:
    """What the file at ``path`` is and a remedy, where it is known to hold no weights."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return "is empty: download or save it again"
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            return f"is {what}: {remedy}"
    if head[:1] == b"\x08" and (b"\x12" in head[:4] or b"pytorch" in head[:64]):
        return "is an ONNX file: save the model's torch state_dict()"
    if head[4:8] == b"TFL3":
        return "is a TensorFlow Lite file: save a torch state_dict()"
    text = _narrow(head).lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return (
            "is a web page (HTML), not the weights: download the file itself, not the page that "
            "shows it"
        )
    if text.startswith((b'{"', b"{\n", b"{}", b"[")) or text.startswith(b"{ "):
        return "is JSON text, not the weights: download the file that it is about"
    if head[_TAR] == b"ustar":
        return "is a tar archive: unpack it with tar -xf"
    if head.startswith(b"PK"):
        return _zip(path)
    # Safetensors, or the pickle of a torch file of before 1.6.
    if is_safetensors(path) or is_torch(head) or path.name.lower().endswith(".safetensors"):
        return None
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in _narrow(head)):
        words = " ".join(_narrow(head).decode("ascii").split())[:40]
        return f"is text ({words!r}), not the weights: download the file itself"
    return "cannot be read: it is neither a torch file nor safetensors; download or save it again"


def is_torch(head: bytes) -> bool:
    """Whether a file that begins so is a torch file: a zip archive, or the pickle of before 1.6."""
    return head.startswith((b"PK", b"\x80\x02"))


def _narrow(head: bytes) -> bytes:
    """Text of one byte a letter, without its mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[2:].replace(b"\0", b"")
    return head.removeprefix(b"\xef\xbb\xbf")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:] == b"{" and 0 < length <= path.stat().st_size - 8


def _zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is cut off or damaged: download it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript archive: save the model's state_dict() instead"
    exported = ("archive_format", "serialized_exported_program.json")  # the latter of torch 2.6
    if any("/data/weights/" in name or name.endswith(exported) for name in names):
        return "is a torch.export archive: save the model's state_dict() instead"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return None
    if any(name.endswith(".npy") for name in names):
        return "is a NumPy archive: save a torch state_dict()"
    return f"is a zip archive of {', '.join(names[:3]) or 'nothing'}: unpack it"
