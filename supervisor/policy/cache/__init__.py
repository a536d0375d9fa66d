"""The cache's decisions: who is kept, who goes, what makes two results the same.

* `keys`      what an entry is found by
* `entry`     what a policy sees and may decide; `classic` (lru, lfu, ttl), `windowed` (adaptive, cost)
* `sketch`    how often was a key asked for; was it ever
* `climb`     the window's share, by the hit rate
* `settings`  limits, and the policy by its name
* `asked`     commands to the cache's thread and its events
* `coalesce`  identical images in flight are worked on once
* `stats`     what is told

The store itself, its index and its files, is `supervisor.mechanism.cache`.
"""
