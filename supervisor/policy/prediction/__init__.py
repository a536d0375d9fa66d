"""What the next image will take, learned from what the last ones took.

A worker predicts from the header alone (the prior: an upper bound by construction of the decoders) and measures the
peak exactly. Here, for each class of images (recipe, format, progressive or interlaced, decoder), the ratio of
measured to prior is kept in a sketch that fades (`sketch`); its upper quantile, with a margin that shrinks as more is
known, is the factor that workers multiply their priors with (`model`). A second sketch for each recipe holds what its
items were predicted to take: its upper quantile is what an ordinary lease reserves of the budget.

* `sketch`    a fading histogram with a bounded number of buckets
* `model`     classes, factors, reservations, and the figures of the error report
* `learning`  a worker's reports taken in, factors told to workers
* `keeping`   what was learned, written down and read again
"""
