"""The core: facts, seams, the plan check, the round loop. Pure Python and NumPy, no I/O."""
