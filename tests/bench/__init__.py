"""The benchmarks: what is promised in figures, measured, beside peers and bare probes in the same run.

    python -m tests.bench [NAME ...] [--json] [--gallery DIR] [--quick]

A benchmark is a file with a function of a `Bench` that yields `Row`s; `registry` names them all. Each figure is
the median of at least five runs (three with --quick), told with its 95th percentile. A machine is never quiet:
beside a timing stands a bare probe (a fork, a kill, an fsync, a round trip without any of our code) that tells
how noisy it was at that moment. Peers run alternately with us, so that a slow minute hits both; a peer that is
not installed is named as missing.

Every supervisor here is a real one, started by the command line in a state directory of its own, which is
removed with everything in it, also on Ctrl-C.
"""
