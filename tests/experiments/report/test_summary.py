"""What a run's closing report says of bytes."""

from experiments.report.summary import hiding_bytes

Kinds = dict[tuple[str | int | None, ...], int]


def test_only_what_the_server_asked_to_be_hidden_counts_as_hiding() -> None:
    up: Kinds = {("t", "up", "message", "shares"): 500, ("t", "up", "message", "keys"): 40}
    assert not hiding_bytes(up, "t"), "a client may send shares that nobody asked for"
    down: Kinds = {("t", "down", "message", "shares"): 30}
    assert hiding_bytes(down, "t") == {"hiding_bytes_up": 0, "hiding_bytes_down": 30}
    assert hiding_bytes(up | down, "t") == {"hiding_bytes_up": 540, "hiding_bytes_down": 30}
