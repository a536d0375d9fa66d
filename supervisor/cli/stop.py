"""`stop`: drains and stops the supervisor, and waits until it is gone."""

import argparse
import os
import time

from protocol.errors import NoSupervisor, WaitedTooLong
from protocol.paths import from_token
from protocol.sockets import is_listening
from supervisor.cli.find import connect
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say
from supervisor.cli.submit import duration

LOOK_SECONDS = 0.05


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", action="store_true", help="do not wait for images in progress")
    parser.add_argument("--timeout", type=duration, metavar="DURATION", help="give up waiting after it, exit 5")


def _run(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        endpoint, welcome = client.endpoint, client.hello()
        pid = welcome.pid
        try:
            message = client.stop(arguments.now)
        except NoSupervisor:
            message = ""  # it was there a moment ago: it has stopped, and its answer went with it
    say(message or f"the supervisor with pid {pid} stops")
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    from supervisor.mechanism.state import StateDirectory

    state = StateDirectory(os.fsdecode(from_token(welcome.state_directory)))
    while is_listening(endpoint) or state.holder() == pid:
        if deadline is not None and time.monotonic() > deadline:
            raise WaitedTooLong(
                f"the supervisor with pid {pid} has not stopped after {arguments.timeout:g} s; it goes on"
            )
        time.sleep(LOOK_SECONDS)
    if arguments.json:
        print_json({"pid": pid, "stopped": True})
    say("stopped")
    return 0


VERBS = {"stop": Verb(_configure, _run, examples="  supervisor stop --now --timeout 10s")}
