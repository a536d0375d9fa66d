"""The gateway's process: `python -m supervisor.gateway --state DIR --http HOST:PORT`.

The supervisor starts it as a part that it can do without; by hand it serves a supervisor that was started without one.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from protocol.errors import GalleryError
from supervisor.config import read
from supervisor.gateway.address import listen
from supervisor.gateway.setup import NAMES, Setup, read_setup
from supervisor.mechanism.memory import share_arenas
from supervisor.settings import BY_NAME
from supervisor.values import show_address


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m supervisor.gateway", description="HTTP for a supervisor.")
    for name in sorted(NAMES):
        parser.add_argument(
            BY_NAME[name].flag, dest=f"setting_{name}", metavar="VALUE", help=BY_NAME[name].help.replace("%", "%%")
        )
    parser.add_argument("--config", metavar="FILE", help="settings file")
    given = vars(parser.parse_args(argv))
    flags = {key.removeprefix("setting_"): value for key, value in given.items() if value is not None}
    share_arenas()
    try:
        return _serve(read_setup(read(flags, NAMES)))
    except GalleryError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{line}\n")
        return error.exit_code


def _serve(setup: Setup) -> int:
    from supervisor.gateway.app import new_app  # the libraries of the extra, only once all else is in order
    from supervisor.gateway.server import new_server

    opened = listen(setup.host, setup.port)
    app, feed = new_app(setup)
    server = new_server(app, feed.end)
    url = f"http://{show_address(setup.host, opened.getsockname()[1])}/"
    with opened, _announced(setup.folder, url):
        asyncio.run(server.serve([opened]))
    return 0


@contextlib.contextmanager
def _announced(folder: str, url: str) -> Iterator[None]:
    """Says where the gateway is reached, on standard error and in the file `url` of its folder."""
    path = os.path.join(folder, "url")
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(url + "\n")
    os.replace(f"{path}.new", path)
    sys.stderr.write(f"{url}\n")
    sys.stderr.flush()
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
