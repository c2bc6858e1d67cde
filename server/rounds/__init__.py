"""A round: what is asked, what is accepted, and what becomes of it."""
