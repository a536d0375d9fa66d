"""The HTTP gateway: a client of the supervisor like any other, in a process of its own.

Nothing here can decide anything: each page and each answer is made of requests that the command line could have made
too, over the same socket. So the gateway may be stopped when memory is short and started again, and whoever breaks into
it has no more than a client has. What it adds is a border: HTTP comes from anywhere, the supervisor's socket only from
the same user.

    browser, curl, Prometheus -> limits -> access -> app -> clients (threads) -> supervisor

* `__main__`    the process: settings, token, listening socket, until it is told to stop
* `setup`       what it is started with, and the token
* `server`      uvicorn, with what it lacks: a limit on the time for a request's head
* `border`      around every request: access, body size, time, errors, security headers
* `access`      who may: token, session cookie, host names, origins
* `clients`     the supervisor's synchronous client, a few of them in threads
* `places`      files below the allowed roots, opened so that no link leads out of them
* `pages` `batches` `submitting` `uploads` `outputs` `controls`   what is served
* `metrics`     Prometheus text
* `feed`        what happens, to every open dashboard at once
* `openapi`     the description of all that
* `static/`     the dashboard

Asynchronous, since most connections only wait: the one place in the house that is. What blocks (the client, disks) runs
in a bounded number of threads.
"""
