"""A whole federation on one machine, as real processes: for the demo, benchmarks and tests."""
