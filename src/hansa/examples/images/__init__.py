"""Handwritten digits and clothes on many devices: a network of the literature, real images."""
