"""Messages out and replies in: who is there, what was asked, what it weighed."""
