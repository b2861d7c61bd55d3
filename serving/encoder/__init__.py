"""The encoder: one process that embeds a query once and says what every adapter knows about it."""
