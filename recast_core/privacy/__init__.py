"""Client-level differential privacy: bounded contributions, noise, and what they cost."""
