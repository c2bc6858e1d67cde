"""Frames, times on air against published values, and duty cycles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engines.radio import RADIOS, fitting, lora_seconds, radio
from recast_core.errors import RecastError

SIZES = st.integers(1, 3000)
PRESETS = st.sampled_from(sorted(RADIOS))


@pytest.mark.parametrize(
    ("size", "spreading", "milliseconds"),
    [
        # The spreadsheet that goes with AN1200.13: 13 bytes at SF9.
        (13, 9, 164.864),
        # loratools.nl's calculator, cut to milliseconds: 7 and 51 bytes.
        (7, 12, 991),
        (51, 12, 2465),
        (7, 11, 495),
        (51, 11, 1314),
        (7, 10, 247),
        (51, 10, 616),
        (7, 9, 123),
        (51, 9, 328),
    ],
)
def test_time_on_air_is_as_published(size: int, spreading: int, milliseconds: float) -> None:
    found = 1e3 * lora_seconds(size, spreading)
    if isinstance(milliseconds, int):
        assert math.floor(found) == milliseconds
    else:
        assert found == pytest.approx(milliseconds, abs=1e-6)


def test_a_full_dr0_frame_takes_its_known_time_and_share_of_the_day() -> None:
    slowest = radio("lorawan-dr0")
    # 51 + 13 bytes at SF12: 85.25 symbols of 32.768 ms; 1 % of a day holds 309 of them.
    assert slowest.seconds_on_air(51) == pytest.approx(85.25 * 32.768e-3)
    assert slowest.messages_per_day(51) == 309
    # A second frame waits for a hundred times the first one's time on air.
    two = slowest.seconds_on_air(51) / 0.01 + slowest.seconds_on_air(1)
    assert slowest.seconds(52) == pytest.approx(two)


def test_presets_have_the_payload_sizes_of_their_specifications() -> None:
    sizes = [RADIOS[f"lorawan-dr{rate}"].frame for rate in range(6)]
    assert sizes == [51, 51, 51, 115, 222, 222]
    assert [RADIOS[f"lorawan-dr{rate}"].spreading for rate in range(6)] == [12, 11, 10, 9, 8, 7]
    assert (radio("sms").frame, radio("iridium-sbd").frame) == (140, 340)
    assert {"nb-iot", "lte-m"} < RADIOS.keys()
    assert all(found.source for found in RADIOS.values())


@given(PRESETS, SIZES)
def test_what_fits_takes_one_frame_and_what_does_not_takes_more(name: str, size: int) -> None:
    found = RADIOS[name]
    assert (found.frames(size) == 1) == (found in fitting(size))
    assert found.frames(size) * found.frame >= size


@given(PRESETS, SIZES, st.integers(1, 500))
def test_more_bytes_never_take_less_time(name: str, size: int, more: int) -> None:
    found = RADIOS[name]
    assert found.seconds_on_air(size + more) >= found.seconds_on_air(size) > 0
    assert found.seconds(size + more) >= found.seconds(size) >= found.seconds_on_air(size)
    assert found.messages_per_day(size + more) <= found.messages_per_day(size)


def test_a_faster_data_rate_is_faster() -> None:
    times = [radio(f"lorawan-dr{rate}").seconds(45) for rate in range(6)]
    assert times == sorted(times, reverse=True)


def test_an_empty_message_is_none() -> None:
    for found in RADIOS.values():
        for ask in (found.frames, found.seconds, found.seconds_on_air, found.messages_per_day):
            with pytest.raises(ValueError, match="0 bytes"):
                ask(0)


def test_an_unknown_radio_names_the_known_ones() -> None:
    with pytest.raises(RecastError, match=r"choose one of lorawan-dr0, .*mean lorawan-dr"):
        radio("lorawan")
