"""The agent of a site: dials out, judges jobs by its own policy, trains, logs what leaves."""
