"""What the coordinator does with the public mean delta: one server optimizer per file."""
