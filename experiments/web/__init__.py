"""The live page of a federation: a process of its own, which only reads."""
