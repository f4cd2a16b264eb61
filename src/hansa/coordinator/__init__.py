"""The coordinator: durable state, the sites' door, and what runs jobs."""
