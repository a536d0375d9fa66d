"""The journal: what was accepted and what became of it, in one SQLite file that survives any death.

One connection, in one thread, both writes and checkpoints: SQLite before 3.51.3 has a WAL-reset bug that
takes two writers or checkpointers. The thread commits in groups: it executes whatever waits as one
transaction (one fsync for all), then posts the outcomes, so an acknowledgement always follows its commit.

Rows cross between Python and SQLite as one JSON text for a whole group. The `sqlite3` module gives the GIL
away and takes it back for each row it binds or steps to, and beside a busy thread each taking back can cost
a switch interval (5 ms); one statement over `json_each` works without the GIL from end to end.

* `schema`     creates, migrates or refuses the file
* `records`    rows <-> the policy's data types
* `batches`, `items`, `remembered`   the commands, each a function of (connection, command)
* `retention`  what is forgotten, a step at a time
* `queries`    requests that only read; `hashes` one of them, what images look like
* `writer`     a group of commands -> one transaction -> events
* `sync`       outputs reach the disk before their rows do
* `stalls`     told once that the disk refuses, once that it takes again
* `journal`    the thread that joins them; `offline` reads where no supervisor runs
* `edition`    which SQLite this is
"""

from supervisor.mechanism.journal.journal import Answered, Journal
from supervisor.mechanism.journal.offline import OfflineReader

__all__ = ["Answered", "Journal", "OfflineReader"]
