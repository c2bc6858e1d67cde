"""Real federations on loopback, a counting relay before every client: what a task costs in bytes."""
