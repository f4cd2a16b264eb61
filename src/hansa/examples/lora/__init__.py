"""A language model that is too large to send: only its low-rank adapters are trained and travel."""
