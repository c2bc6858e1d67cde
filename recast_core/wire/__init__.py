"""What crosses the wire, as bytes: numbers, messages, heads."""
