"""The two data sets of the paper that torchvision has no class for, as folders of class folders.

``python -m experiments.studies.paper_data scenes cub --root data`` links every image of MIT Indoor
Scenes (Quattoni and Torralba, 2009) and of CUB-200-2011 (Wah et al., 2011) into train/ and test/ by
the split that their authors published. ``--download`` fetches the archives first; without it they
must lie unpacked in the root, as their archives unpack.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torchvision.datasets.utils import download_and_extract_archive, download_url

from experiments.studies.one_line import in_one_line
from recast_core.errors import RecastError

_SCENES = "http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"
_SCENES_LISTS = ("https://web.mit.edu/torralba/www/TrainImages.txt",
                 "https://web.mit.edu/torralba/www/TestImages.txt")  # fmt: skip
_CUB = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
_CUB_MD5 = "97eceeb196236b17998738112f37df78"

# Of an image: its file, its class, and whether it is for training.
Image = tuple[Path, str, bool]


def scenes(root: Path) -> Iterator[Image]:
    """Images of MIT Indoor Scenes: ``Images/CLASS/FILE`` and two lists of such lines.

    Raises:
        RecastError: a list is not there.
    """
    for name, training in (("TrainImages.txt", True), ("TestImages.txt", False)):
        for line in _lines(root / name):
            yield root / "Images" / line, line.split("/")[0], training


def cub(root: Path) -> Iterator[Image]:
    """Images of CUB-200-2011: numbered paths in images.txt, and 1 for training beside each number.

    Raises:
        RecastError: a list is not there.
    """
    folder = root / "CUB_200_2011"
    training = dict(line.split() for line in _lines(folder / "train_test_split.txt"))
    for line in _lines(folder / "images.txt"):
        number, path = line.split(maxsplit=1)
        yield folder / "images" / path, path.split("/")[0], training[number] == "1"


SETS: dict[str, Callable[[Path], Iterator[Image]]] = {"scenes": scenes, "cub": cub}


def arrange(name: str, root: Path) -> Path:
    """Link a data set's images into ``root/name/train`` and ``root/name/test``.

    Raises:
        RecastError: the archive is not there, or an image of its lists is not.
    """
    folder = root / name
    for file, kind, training in SETS[name](root):
        if not file.is_file():
            raise RecastError(f"no image {file}: unpack the whole archive of {name} into {root}")
        place = folder / ("train" if training else "test") / kind
        place.mkdir(parents=True, exist_ok=True)
        link = place / file.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(file, place))
    return folder


def download(name: str, root: Path) -> None:
    """Fetch and unpack a data set's archive."""
    if name == "cub":
        download_and_extract_archive(_CUB, str(root), md5=_CUB_MD5)
        return
    download_and_extract_archive(_SCENES, str(root))
    for url in _SCENES_LISTS:
        download_url(url, str(root))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise RecastError(f"no {path}: fetch it with --download, or unpack the archive there")
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.paper_data", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="+", choices=SETS)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--download", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.names:
        if options.download:
            download(name, options.root)
        print(f"folder:{arrange(name, options.root)}")


if __name__ == "__main__":
    in_one_line(main)
