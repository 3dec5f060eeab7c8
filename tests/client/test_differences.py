from __future__ import annotations

import pytest

from echo_client.differences import describe, excerpt


@pytest.mark.parametrize(
    ("message", "reply", "said"),
    [
        (b"hello", b"hellO", "differs from offset 4 on, in 1 of 5 bytes"),
        (b"hello", b"HELLO", "differs from offset 0 on, in 5 of 5 bytes"),
        (b"hello", b"hel", "ends at offset 3: 5 bytes were sent and 3 came back"),
        (b"hello", b"", "ends at offset 0: 5 bytes were sent and 0 came back"),
        (b"hello", b"hello!", "continues after offset 5: 5 bytes were sent and 6 came back"),
        (b"hello", b"help", "differs from offset 3 on: 5 bytes were sent and 4 came back"),
    ],
)
def test_the_first_difference_is_located(message: bytes, reply: bytes, said: str) -> None:
    assert describe(message, reply)[0] == f"the reply {said}"


def test_the_bytes_around_are_shown_below_one_another() -> None:
    message = bytes(range(100))
    reply = message[:60] + b"\xff" + message[61:]
    assert describe(message, reply) == [
        "the reply differs from offset 60 on, in 1 of 100 bytes",
        "  sent      …34 35 36 37 38 39 3a 3b 3c 3d 3e 3f 40 41 42 43… |456789:;<=>?@ABC|",
        "  received  …34 35 36 37 38 39 3a 3b ff 3d 3e 3f 40 41 42 43… |456789:;.=>?@ABC|",
    ]


def test_a_short_reply_is_padded() -> None:
    assert describe(b"hello", b"hel")[1:] == [
        "  sent      68 65 6c 6c 6f   |hello|",
        "  received  68 65 6c         |hel|",
    ]


def test_an_excerpt() -> None:
    assert excerpt(b"no") == "6e 6f   |no|"
    assert excerpt(bytes(100)) == f"{bytes(16).hex(' ')}…  |{'.' * 16}|"
