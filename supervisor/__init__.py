"""The supervisor: decides (`policy`), does (`mechanism`), and joins the two in one loop (`loop`).

`cli` is the command line, a client like any other. See README.md for the map.
"""

__version__ = "0.1.0"
