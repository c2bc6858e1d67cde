"""Heads: a task's classifier over the backbone's features, one kind a file."""
