"""What a run leaves behind: the registry, the ledger, and how both survive."""
