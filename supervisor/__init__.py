"""The supervisor: decides (`policy`), does (`mechanism`), and joins the two in one loop (`loop`).

`cli` is the command line, a client like any other; `embedded` is the same for Python programs, and gives
`supervisor.Supervisor`. See README.md for the map.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.embedded import Result, Supervisor

__all__ = ["Result", "Supervisor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports the embedded API when it is asked for: the command line and the workers never pay for it."""
    if name in ("Result", "Supervisor"):
        from supervisor import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
