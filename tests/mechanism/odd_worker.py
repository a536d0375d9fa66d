"""A worker process that is no worker: does what its `backend_endpoint` says. Entered as workers.entry would be."""

import os
import sys
import time

from protocol.launch import WorkerStart
from workers import limits


def main(start: WorkerStart) -> None:
    """Ties itself to template and supervisor like any worker, then behaves as told."""
    limits.die_with(start.template_pid)
    limits.die_with_supervisor(start.death_pipe_path)
    limits.hold_life_lock(start.life_lock_path)
    word, _, argument = start.backend_endpoint.partition(":")
    match word:
        case "exit":
            os._exit(int(argument))
        case "raise":
            raise RuntimeError(argument)
        case "modules":
            with open(argument, "w") as file:
                file.write("\n".join([*sys.modules, f"main={getattr(sys.modules['__main__'], '__file__', None)}"]))
        case "environment":
            with open(argument, "w") as file:
                file.write("\n".join(os.environ))
        case "spin":
            with open(argument, "w") as file:
                file.write("spinning")
            sum(range(10**15))  # days inside one C function: no signal handler of Python's would ever run
        case "family":
            os.setpgid(0, 0)
            helper = os.fork()
            if helper:
                with open(argument, "w") as file:
                    file.write(str(helper))
            time.sleep(3600)
        case "wait":
            with open(argument, "w") as file:
                file.write("waiting")
            time.sleep(3600)
