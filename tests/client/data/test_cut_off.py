"""A path whose end the grammar took for something else is told how to be given."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.data.sources import load_dataset
from recast_core import RecastError
from recast_core.task_spec import parse_task


@pytest.mark.parametrize("name", ["photos@0-1", "photos+fog", "photos[50%:]"])
def test_a_folder_whose_name_ends_like_the_grammar_is_told_to_stand_in_quotes(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RecastError) as caught:
        load_dataset(parse_task(f"folder:{tmp_path}/{name}"), 32)
    wanted = f'if {tmp_path / name} is meant, put the path in quotes: KIND:"PATH"'
    assert str(caught.value).endswith(wanted)
    assert parse_task(f'folder:"{tmp_path}/{name}"').data == f"folder:{tmp_path}/{name}"


@pytest.mark.parametrize("text", ["folder:/g++", "folder:/a+b", "folder:/x[1]"])
def test_a_path_that_is_read_as_a_transform_or_part_is_told_of_quotes(text: str) -> None:
    with pytest.raises(RecastError, match="in quotes"):
        parse_task(text)
