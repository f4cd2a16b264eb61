"""Generated from `proto/hansa/v1/` by `make proto`; never edited by hand."""
