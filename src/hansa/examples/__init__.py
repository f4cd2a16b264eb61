"""Jobs that run as they are: `hansa simulate heart`."""
