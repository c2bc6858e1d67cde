"""A client of a federation: a ClientApp that keeps the bank and fits coefficients locally."""
