"""The server of a federation: a ServerApp, its strategy, and the registry of what was learned."""
