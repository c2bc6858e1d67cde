"""Sums that hide their terms: secret sharing, and the channels that shares travel through."""
