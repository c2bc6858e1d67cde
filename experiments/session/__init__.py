"""A federation and what it leaves, for Python and for the command alike."""
