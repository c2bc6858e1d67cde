"""What makes a table of a document; nothing of the product needs it."""
