"""What crosses a process boundary: messages, their bytes, the sockets they travel on, and the client.

Everything here is shared by the supervisor, its workers and outside clients, and imports nothing of
theirs. Three boundaries, three modules:

* the wire (JSON over ZeroMQ): `messages`, `codec`, `sockets`, `client`;
* the flight recorder (a file mapped by a worker and read by the supervisor): `recorder`;
* the start of a worker process: `launch`.

`paths` gives file names that are not UTF-8 a form that JSON can carry; `errors` says whose fault a
failure is.
"""
