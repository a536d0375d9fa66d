"""Everything the supervisor decides, as pure functions of (state, event, now).

Nothing here opens a file, reads a clock, draws from a global random source or writes a log line. Events
come in (`events`), commands go out (`commands`), `Pool` joins the parts:

* `worker`     the life of one worker: state x event table
* `state`      the whole state of the pool: its slots, what is in each, and what it has been through
* `queue`      batches and the window of their items held in memory
* `intake`     what clients ask; `filling` batches that still take images; `hours` when work is begun
* `lending`    who gets which items, how many; `reports` what becomes of them
* `batch_size` how many items a lease may have: grows when calm, halves on pressure
* `watch`      memory: limits of a worker, levels of the whole, how often to look
* `cleanup`    memory given back on purpose: when a tier begins and ends; `cleanup_actions` what it consists of,
               `cleanup_pool` what the pool itself gives up, `cleanup_verdict` whether it helped
* `restart`    when a dead worker may be replaced
* `blame`      which death charges which image with what
* `status`     status and progress, from the state
"""
