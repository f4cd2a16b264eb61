"""Matrices of correlated noise: what to draw, how far one client moves it, how large the error is.

A run of T rounds is a matrix X with a row for each round. The matrix mechanism releases
X + s C^-1 Z, with Z of independent standard normal rows: a function of C X + s Z, so its privacy is
that of Gaussian noise on C X (Li et al., VLDB Journal 2015; for rows that depend on what was
released before, Denisov et al., NeurIPS 2022, arXiv 2202.08312). A model is a sum of rows, and
their noise is made to cancel in it.

Clients take part under a schema: at most k times, at least b rounds apart.

| module      | about                                                                       |
|-------------|-----------------------------------------------------------------------------|
| strategy    | `Strategy`: a matrix C, its schema and its sensitivity                      |
| toeplitz    | coefficients of C and of its inverse                                        |
| tree        | the binary tree and its estimates                                           |
| sensitivity | how far one client moves C X                                                |
| stream      | the rows of C^-1 Z, one at a time                                           |
| error       | the error of prefix sums, to choose by                                      |
| catalogue   | the matrices that are recorded, and which one is taken                      |
"""

from hansa.privacy.matrices.catalogue import choose
from hansa.privacy.matrices.error import PrefixError, prefix_error
from hansa.privacy.matrices.strategy import Kind, Strategy, sensitivity

__all__ = ["Kind", "PrefixError", "Strategy", "choose", "prefix_error", "sensitivity"]
