"""The live page of a federation: a process of its own, which only reads."""

# What this machine goes by to itself; another name may be one that a stranger had lead here.
OWN_NAMES = "127.0.0.1", "localhost", "[::1]"
