"""Real federations on loopback, each client behind a counting relay: what a task costs."""
