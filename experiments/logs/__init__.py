"""What a run tells while it goes: one protocol of callbacks, and logs that speak it."""
