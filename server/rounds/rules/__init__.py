"""Rules that make one vector of a round's contributions: pure functions, one file each."""
