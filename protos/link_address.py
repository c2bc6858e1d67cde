"""Where a server is: what people write for it, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# What the system's resolver reads as an address of 127.0.0.0/8, with fewer than four numbers.
_SHORT_LOOPBACK = re.compile(r"127(\.\d{1,8}){1,2}", re.ASCII)
# How long a part of a name between two dots may be.
_LABEL = 63
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?")


@dataclass(frozen=True)
class Address:
    """A host, an IPv6 address without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, as far as its name tells."""
        if self.host.lower().rstrip(".") == "localhost":
            return True
        address = _ip(self.host)
        address = getattr(address, "ipv4_mapped", None) or address
        return address is not None and address.is_loopback

    @property
    def is_here(self) -> bool:
        """Whether who connects to the host reaches this machine: also by 0.0.0.0 or 127.1."""
        address = _ip(self.host)
        unspecified = address is not None and address.is_unspecified
        return self.is_loopback or unspecified or _SHORT_LOOPBACK.fullmatch(self.host) is not None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT``; an IPv6 address stands in brackets.

        Raises:
            ValueError: it is none; the text says what is wrong and what to write.
        """
        text = text.strip()
        scheme, separator, rest = text.partition("://")
        if separator:
            bare = rest.partition("/")[0] or "HOST:PORT"
            raise ValueError(f"{text!r} is a URL: leave {scheme}:// out and give {bare}")
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
        if bracketed:
            host, port = bracketed[1], bracketed[2]
            if _ip(host) is None or ":" not in host:
                raise ValueError(f"{text!r}: {host!r} is no IPv6 address; give HOST:PORT")
        elif text.count(":") > 1:
            raise ValueError(
                f"{text!r} has several colons: write an IPv6 address in brackets, [ADDRESS]:PORT"
            )
        else:
            host, _, port = text.partition(":")
        if not bracketed and re.fullmatch(r"[0-9]{1,5}", text):
            raise ValueError(f"{text!r} is a port without a host: give HOST:PORT, 127.0.0.1:{text}")
        if not bracketed and (why := _why_no_host(host)) is not None:
            raise ValueError(f"{text!r}: {host!r} is no host{why}; give HOST:PORT")
        if not port:
            raise ValueError(
                f"{text!r} has no port: give HOST:PORT, such as {text.rstrip(':')}:9441"
            )
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError(f"{text!r}: {port!r} is no port; give a number from 0 to 65535")
        return cls(host, int(port))


def _why_no_host(host: str) -> str | None:
    """Why no resolver can find a host of this name, maybe nothing; ``None`` where one may."""
    if not host.isascii():
        try:
            return f", write {host.encode('idna').decode()}"
        except UnicodeError:
            return ""
    if not _HOST.fullmatch(host):
        return ""
    if re.fullmatch(r"(\d+\.){3}\d+", host) and _ip(host) is None:
        return " and no IPv4 address, of four numbers up to 255"
    labels = host.removesuffix(".").split(".")
    return None if all(0 < len(label) <= _LABEL for label in labels) else ""


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
