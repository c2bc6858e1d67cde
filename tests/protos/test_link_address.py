"""What people write for a server's address: read, or told what is wrong with it."""

from __future__ import annotations

import re

import pytest

from protos.link_address import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("localhost:9441", "localhost", 9441, True),
        ("127.0.0.1:1", "127.0.0.1", 1, True),
        ("127.8.9.1:65535", "127.8.9.1", 65535, True),
        ("[::1]:9441", "::1", 9441, True),
        ("fl.example:443", "fl.example", 443, False),
        ("0.0.0.0:0", "0.0.0.0", 0, False),
        (" [2001:db8::7]:80 ", "2001:db8::7", 80, False),
        ("localhost.example:1", "localhost.example", 1, False),
        ("my_host:8", "my_host", 8, False),
        ("fl.example.:8", "fl.example.", 8, False),
        ("[::ffff:127.0.0.1]:9441", "::ffff:127.0.0.1", 9441, True),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int, loopback: bool) -> None:
    found = Address.parse(text)
    assert (found.host, found.port, found.is_loopback) == (host, port, loopback)
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://fl.example:9441", "leave http:// out and give fl.example:9441"),
        ("https://fl.example:9441/x", "leave https:// out and give fl.example:9441"),
        ("grpc://", "leave grpc:// out and give HOST:PORT"),
        ("fl.example", "has no port: give HOST:PORT, such as fl.example:9441"),
        ("fl.example:", "has no port: give HOST:PORT, such as fl.example:9441"),
        ("localhost:abc", "'abc' is no port"),
        ("localhost:99999", "'99999' is no port; give a number from 0 to 65535"),
        ("localhost:65536", "'65536' is no port"),
        ("localhost:-1", "'-1' is no port"),
        ("localhost: 80", "' 80' is no port"),
        ("localhost:٣", "'٣' is no port"),
        ("::1:9441", "write an IPv6 address in brackets, [ADDRESS]:PORT"),
        ("2001:db8::7", "write an IPv6 address in brackets"),
        ("[::1]", "has no port"),
        ("[fl.example]:1", "'fl.example' is no IPv6 address"),
        ("[127.0.0.1]:1", "'127.0.0.1' is no IPv6 address"),
        ("8080", "'8080' is a port without a host: give HOST:PORT, 127.0.0.1:8080"),
        (":9441", "'' is no host"),
        ("", "'' is no host"),
        ("user@host:1", "'user@host' is no host"),
        ("a b:1", "'a b' is no host"),
        ("host/path:1", "'host/path' is no host"),
        ("256.1.1.1:80", "and no IPv4 address, of four numbers up to 255"),
        ("192.168.1.300:80", "and no IPv4 address"),
        ("a..b:80", "'a..b' is no host"),
        ("a" * 64 + ".de:80", "is no host"),
        ("m\u00fcnchen.de:80", "write xn--mnchen-3ya.de"),
    ],
)
def test_what_is_none_is_told_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        Address.parse(text)
    assert "\n" not in str(error.value)
