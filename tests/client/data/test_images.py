"""Image files: upright whatever their EXIF holds, and greys of any depth as eight bits."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import load_dataset, parse_task
from client.data.images import read_image, to_bytes
from recast_core.errors import RecastError

_ODD_TAGS = {
    "a rational of no value": (0x9201, 10, 1, struct.pack("<ii", -1, 0)),
    "text where a number belongs": (0x829A, 2, 4, b"abc\0"),
    "a number where text belongs": (0x010F, 3, 1, struct.pack("<HH", 7, 0)),
    "bytes of a kind that is none": (0x9286, 99, 3, b"xyz\0"),
    "an offset beyond the end": (0x010E, 2, 400, struct.pack("<I", 60000)),
    "an empty rational": (0x011A, 5, 0, bytes(4)),
    "a double in a short tag": (0x0128, 12, 1, struct.pack("<d", float("nan"))),
    "a maker's note of rubbish": (0x927C, 7, 4, b"\xff\xfe\xfd\xfc"),
    "a directory that is its own": (0x8769, 4, 1, struct.pack("<I", 8)),
    "a GPS directory nowhere": (0x8825, 4, 1, struct.pack("<I", 0xFFFFFF)),
}


def _exif(orientation: int, tag: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of an orientation and one more tag, as a camera would write it."""
    code, kind, count, value = tag
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    after = 8 + 2 + 2 * 12 + 4
    held = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", after)
    entries.append(struct.pack("<HHI", code, kind, count) + held)
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + body + (value if len(value) > 4 else b"")


def _corner(path: Path, exif: bytes, kind: str = "JPEG") -> None:
    """An image 12 wide, 8 high, white in its upper left quarter alone."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :6] = 255
    Image.fromarray(pixels).save(path, kind, exif=exif, quality=95)


@pytest.mark.parametrize("tag", _ODD_TAGS.values(), ids=_ODD_TAGS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_6_turns_an_image_whatever_other_tag_it_has(
    tmp_path: Path, tag: tuple[int, int, int, bytes], kind: str
) -> None:
    _corner(tmp_path / "i.bin", _exif(6, tag), kind)
    found = read_image(tmp_path / "i.bin", 100)
    assert found.shape == (12, 8, 3)
    # Quarter-turned clockwise, upper left is upper right.
    assert found[2, 6].min() > 200
    assert max(found[2, 1].max(), found[9, 1].max(), found[9, 6].max()) < 60


def test_every_orientation_is_that_of_pillows_own_transposition(tmp_path: Path) -> None:
    from PIL import ImageOps

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / "i.png", exif=exif)
        with Image.open(tmp_path / "i.png") as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(read_image(tmp_path / "i.png", 100), expected)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, orientation: int) -> None:
    _corner(tmp_path / "i.jpg", _exif(orientation, _ODD_TAGS["an empty rational"]))
    assert read_image(tmp_path / "i.jpg", 100).shape == (8, 12, 3)


def test_rubbish_in_place_of_exif_keeps_no_image_out(tmp_path: Path) -> None:
    for content in (b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" * 9):
        _corner(tmp_path / "i.jpg", content)
        assert read_image(tmp_path / "i.jpg", 100).shape == (8, 12, 3)


def test_a_tiff_with_an_odd_tag_is_turned_once(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12), np.uint8)
    pixels[:4, :6] = 255
    for compression in (None, "tiff_lzw"):
        info = {0x0112: 6, 0x010F: "maker"}
        Image.fromarray(pixels).save(tmp_path / "i.tif", tiffinfo=info, compression=compression)
        found = read_image(tmp_path / "i.tif", 100)
        assert found.shape == (12, 8)
        assert found[2, 6] == 255
        assert found[2, 1] == found[9, 1] == 0


def _greys(folder: Path, brightest: int, suffix: str = "png") -> None:
    """Two classes of 16-bit greys, dark and bright, up to a value."""
    ramp = np.linspace(0, brightest, 64).reshape(8, 8).astype(np.uint16)
    for name, image in (("dark", ramp // 2), ("light", ramp)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(5):
            Image.fromarray(image).save(folder / name / f"{index}.{suffix}")


@pytest.mark.parametrize(
    ("brightest", "bits"),
    [(255, 8), (1023, 10), (4095, 12), (3000, 12), (16383, 14), (65535, 16), (40000, 16)],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greys_of_more_than_eight_bits_keep_their_range(
    tmp_path: Path, brightest: int, bits: int, suffix: str
) -> None:
    _greys(tmp_path, brightest, suffix)
    load_dataset.cache_clear()
    data = load_dataset(parse_task(f"x=folder:{tmp_path}"), 32)
    assert data.grey_bits == bits
    images = np.concatenate([data.x_train, data.x_test])
    labels = np.concatenate([data.y_train, data.y_test])
    assert images[labels == 1].max() == brightest >> (bits - 8)
    # A set's images are scaled alike: the dark ones stay dark.
    assert abs(int(images[labels == 0].max()) - (brightest >> (bits - 7))) <= 1


def test_a_grey_beyond_the_depth_that_is_known_is_refused() -> None:
    deep = np.full((2, 2), 5000, np.uint16)
    with pytest.raises(ValueError, match="5000, the task's have 12 bits"):
        to_bytes([[deep]], 12)
    assert to_bytes([[deep, np.full((2, 2), 7, np.uint8)]], 14)[0][0][1].max() == 7


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.full((4, 4), 70000, np.int32), "70000"),
        (np.full((4, 4), -5, np.int32), "-5"),
        (np.full((4, 4), 0.5, np.float32), "floating-point"),
    ],
)
def test_numbers_of_unknown_range_are_no_image(
    tmp_path: Path, pixels: np.ndarray, why: str
) -> None:
    Image.fromarray(pixels).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=why):
        read_image(tmp_path / "i.tif", 8)


def test_colours_of_twelve_bits_in_sixteen_are_refused_not_black(tmp_path: Path) -> None:
    import zlib

    def png(value: int) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            whole = kind + body
            return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

        rows = (b"\0" + struct.pack(">H", value) * 3 * 4) * 4
        header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    (tmp_path / "deep.png").write_bytes(png(65535))
    assert read_image(tmp_path / "deep.png", 8).max() == 255
    (tmp_path / "twelve.png").write_bytes(png(4095))
    with pytest.raises(ValueError, match="8 bits a colour"):
        read_image(tmp_path / "twelve.png", 8)


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif", "jfif", "bmp", "tif", "ppm", "jp2"])
def test_what_pillow_reads_is_read(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            kind = "JPEG" if suffix == "jfif" else None
            try:
                Image.fromarray(pixels).save(tmp_path / name / f"{index}.{suffix}", kind)
            except (KeyError, OSError, ValueError) as error:
                pytest.skip(f"Pillow here writes no {suffix}: {error}")
    load_dataset.cache_clear()
    data = load_dataset(parse_task(f"x=folder:{tmp_path}"), 32)
    assert len(data.x_train) + len(data.x_test) == 10


def test_all_unreadable_images_are_in_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(tmp_path / name / f"{index}.png")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "b" / "text.gif").write_text("<html>not found</html>")
    load_dataset.cache_clear()
    task = parse_task(f"x=folder:{tmp_path}")
    with pytest.raises(RecastError) as error:
        load_dataset(task, 8)
    line = str(error.value)
    assert "cannot read 3 of the 15 images" in line
    assert all(name in line for name in ("cut.png", "empty.jpg", "text.gif", "--skip-unreadable"))
    assert "\n" not in line
    data = load_dataset(task, 8, skip_unreadable=True)
    assert len(data.x_train) + len(data.x_test) == 12


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_picture_in_its_transparency_alone_is_refused_not_blank(
    tmp_path: Path, mode: str, ink: int
) -> None:
    image = Image.new("L", (8, 8), ink).convert(mode)
    image.putalpha(Image.fromarray(np.eye(8, dtype=np.uint8) * 255))
    image.save(tmp_path / "drawn.png")
    with pytest.raises(ValueError, match="put it on a background"):
        read_image(tmp_path / "drawn.png", 8)
    image.putalpha(255)
    image.save(tmp_path / "plain.png")
    assert int(read_image(tmp_path / "plain.png", 8).min()) == ink


def test_pillow_says_nothing_of_odd_tags(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    block = struct.pack("<2sHIHHHIHH", b"II", 42, 8, 30, 0x0112, 3, 1, 6, 0)
    Image.new("RGB", (8, 4)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0" + block)
    assert read_image(tmp_path / "odd.jpg", 8).shape == (8, 4, 3)
    # Not what ends at this moment of another test's, which would be a ResourceWarning.
    assert not [one for one in recwarn.list if one.category is not ResourceWarning]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photo: save it as JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\0" * 128 + b"DICM", "no image"),
    ],
)
def test_what_goes_by_the_name_of_an_image_is_called_what_it_is(
    tmp_path: Path, content: bytes, what: str
) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=what):
        read_image(tmp_path / "photo.jpg", 8)
