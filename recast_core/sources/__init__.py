"""Where a bank's templates come from: one source a file."""
