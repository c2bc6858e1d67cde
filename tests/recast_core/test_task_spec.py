"""The task grammar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_core.errors import RecastError
from recast_core.task_spec import SHIFTS, TRANSFORMS, TaskSpec, parse_task, parse_tasks

_names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,39}", fullmatch=True)
_paths = st.from_regex(r"[A-Za-z0-9._/=+ -]{0,20}/[A-Za-z0-9._=-]{1,10}", fullmatch=True)
_data = st.one_of(
    st.sampled_from(["digits", "CIFAR10", "Flowers102"]),
    st.builds("{}:{}".format, st.sampled_from(["npz", "folder"]), _paths),
)
_ranges = st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)).map(
    lambda pair: (min(pair), max(pair))
)
_shifts = st.builds("{}:{}".format, st.sampled_from(SHIFTS), st.integers(1, 5))
_specs = st.builds(
    TaskSpec,
    _names,
    _data,
    _ranges,
    st.lists(st.sampled_from(sorted(TRANSFORMS)) | _shifts, max_size=3).map(tuple),
    st.none() | st.tuples(st.integers(0, 49), st.integers(50, 100)),
)


_any_path = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from(list("\"'@+,=: []%0-9")),
    min_size=1,
).filter(str.strip)


@given(
    st.builds(
        TaskSpec,
        _names,
        st.builds("{}:{}".format, st.sampled_from(["npz", "folder"]), _any_path),
        _ranges,
        st.sampled_from([(), ("inverted",), ("fog:3", "noisy")]),
        st.sampled_from([None, (0, 50), (50, 100)]),
    )
)
def test_any_path_comes_back_from_the_text_of_a_spec_alone_and_among_others(spec: TaskSpec) -> None:
    assert parse_task(str(spec)) == spec
    other = TaskSpec("another-one", "digits")
    assert parse_tasks(f"{other} {spec}") == (other, spec)
    assert parse_tasks([f"{spec},{other}"]) == (spec, other)


@pytest.mark.parametrize(
    ("text", "data", "class_range", "transforms"),
    [
        ('folder:"/my photos"', "folder:/my photos", None, ()),
        ("folder:'/my photos'", "folder:/my photos", None, ()),
        ('x=folder:"/a,b"@0-1+inverted', "folder:/a,b", (0, 1), ("inverted",)),
        ('folder:"/a@0-1"', "folder:/a@0-1", None, ()),
        ('folder:"/a@0-1"@2-3', "folder:/a@0-1", (2, 3), ()),
        ('npz:"/c++"+noisy', "npz:/c++", None, ("noisy",)),
        ('npz:"/a+inverted.npz+inverted"', "npz:/a+inverted.npz+inverted", None, ()),
        ('"folder:/my photos"+inverted', "folder:/my photos", None, ("inverted",)),
        ('"x=folder:/my photos"', "folder:/my photos", None, ()),
        ('x="folder:/my photos"', "folder:/my photos", None, ()),
        ('folder:"/say ""hi"""', 'folder:/say "hi"', None, ()),
        ("npz:/x/it's.npz", "npz:/x/it's.npz", None, ()),
        ('FOLDER:"/a[0%:50%]"', "folder:/a[0%:50%]", None, ()),
    ],
)
def test_a_quoted_path_is_taken_as_it_stands(
    text: str, data: str, class_range: tuple[int, int] | None, transforms: tuple[str, ...]
) -> None:
    spec = parse_task(text)
    assert (spec.data, spec.class_range, spec.transforms) == (data, class_range, transforms)
    (alone,) = parse_tasks(text)
    assert alone == spec


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('folder:"/a b', "does not end"),
        ('folder:"/a b"/c', "the whole path into the quotes"),
        ('folder:"/a"@5-2', "A <= B"),
        ('folder:" "', "folder:PATH"),
        ("folder:/my photos", "a path with spaces or commas stands in quotes"),
        ('"/a b"', "unknown data"),
        ("flowers.npz", "did you mean npz:flowers.npz"),
        ("photos/of-mine", "did you mean folder:photos/of-mine"),
        ("scenes", "images of your own are folder:PATH or npz:PATH"),
        ('"a/b=digits"', "bad task name"),
    ],
)
def test_quotes_that_go_wrong_are_one_line(text: str, remedy: str) -> None:
    with pytest.raises(RecastError, match=remedy) as error:
        parse_tasks(text)
    assert "\n" not in str(error.value)


def test_an_apostrophe_separates_nothing() -> None:
    assert [t.data for t in parse_tasks("npz:/it's.npz,npz:/that's.npz digits")] == [
        "npz:/it's.npz",
        "npz:/that's.npz",
        "digits",
    ]


@given(_specs)
def test_text_of_a_spec_parses_back_to_it(spec: TaskSpec) -> None:
    assert parse_task(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "name", "data"),
    [
        ("digits", "digits", "digits"),
        ("digits+inverted", "digits-inverted", "digits"),
        ("digits@0-4+noisy+rotated", "digits-0-4-noisy-rotated", "digits"),
        ("npz:/x/flowers102.npz", "flowers102", "npz:/x/flowers102.npz"),
        ("folder:/x/My photos/", "My-photos", "folder:/x/My photos/"),
        ("digits+fog", "digits-fog-3", "digits"),
        ("digits[:50%]", "digits-0-50pct", "digits"),
        ("npz:/x/d.npz[50%:]@1-2+far:5+noisy", "d-50-100pct-1-2-far-5-noisy", "npz:/x/d.npz"),
        ("folder:/x/a[b]c", "a-b-c", "folder:/x/a[b]c"),
        ("corrupted:/x/CIFAR-10-C+fog", "CIFAR-10-C-fog-3", "corrupted:/x/CIFAR-10-C"),
        ("corrupted:/x/C+shot_noise:5+Far:1", "C-shot_noise-5-far-1", "corrupted:/x/C"),
        ("cifar10", "cifar10", "CIFAR10"),
        ("a=FASHIONMNIST", "a", "FashionMNIST"),
        ("folder:/x/a=b", "a-b", "folder:/x/a=b"),
        ("npz:/c++/d.npz", "d", "npz:/c++/d.npz"),
        ("folder:/x/#1", "1", "folder:/x/#1"),
        ("folder:/\u65e5\u672c", "folder", "folder:/\u65e5\u672c"),
        ("npz:/x/-9.npz", "9", "npz:/x/-9.npz"),
    ],
)
def test_name_defaults_to_the_data(text: str, name: str, data: str) -> None:
    spec = parse_task(text)
    assert (spec.name, spec.data) == (name, data)


def test_default_name_of_a_long_path_stays_valid() -> None:
    name = parse_task(f"folder:/{'x' * 80}+inverted").name
    assert len(name) == 40
    assert name.endswith("-inverted")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("digitz", "did you mean digits"),
        ("CIFAR11", "CIFAR10"),
        ("digits+invrted", "did you mean inverted"),
        ("digits+", "unknown transform ''"),
        ("digits@5-2", "A <= B"),
        ("digits+fog:6", "1 (faint) to 5 (severe)"),
        ("digits+fog:0", "1 (faint) to 5 (severe)"),
        ("digits+fog:", "1 (faint) to 5 (severe)"),
        ("digits+fog:2.5", "1 (faint) to 5 (severe)"),
        ("digits+fgo:2", "did you mean fog"),
        ("corrupted:/x/C", "corrupted:PATH+NAME:SEVERITY"),
        ("corrupted:/x/C+", "corrupted:PATH+NAME:SEVERITY"),
        ("corrupted:/x/C+shot_noise:6", "1 (faint) to 5 (severe)"),
        ("corrupted:+fog", "corrupted:PATH"),
        ("digits+noisy:2", "has no severity"),
        ("digits[50%:40%]", "0 <= A < B <= 100"),
        ("digits[:101%]", "0 <= A < B <= 100"),
        ("digits[:50]", "whole percentages"),
        ("digits[]", "whole percentages"),
        ("npz:", "npz:PATH"),
        ("folder: ", "folder:PATH"),
        ("..=digits", "no leading dot"),
        ("a/b=digits", "bad task name"),
        ("=digits", "bad task name"),
        ("x" * 41 + "=digits", "bad task name"),
        ("digits+inverted@0-4", "unknown data"),
    ],
)
def test_bad_task_is_refused_in_one_line_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(RecastError) as error:
        parse_task(text)
    assert remedy in str(error.value)
    assert "\n" not in str(error.value)


def test_tasks_split_at_commas_and_white_space_but_list_items_only_at_commas() -> None:
    assert [t.name for t in parse_tasks("digits, a=digits\nb=digits")] == ["digits", "a", "b"]
    assert [t.name for t in parse_tasks(["digits,a=digits", "npz:/my data/c.npz"])] == [
        "digits",
        "a",
        "c",
    ]


@pytest.mark.parametrize("tasks", ["digits digits", "a=digits,A=digits", "", [], " , "])
def test_no_task_or_a_name_given_twice_is_refused(tasks: str | list[str]) -> None:
    with pytest.raises(RecastError):
        parse_tasks(tasks)


_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "document", [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_every_task_that_a_document_names_can_be_read(document: Path) -> None:
    text = document.read_text()
    named = re.findall(r"--tasks ('[^']+'|\"[^\"]+\"|[\w:./@+=-]+)", text)
    for tasks in named:
        shell_quoted = tasks[0] in "'\""
        assert parse_tasks(tasks[1:-1] if shell_quoted else tasks)
    if document.name in ("README.md", "deploy.md"):
        assert named
