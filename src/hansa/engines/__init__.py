"""Engines: what runs the clients of a round. All give the same bits for the same updates."""
