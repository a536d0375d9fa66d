"""Vectors of images (embeddings): kept compactly on the disk, loaded when they are asked for, searched by cosine.

They come from the results of the operation `embed` and are only a copy of them that can be searched: deleting the
directory costs one more reading. It is read and written by the command that searches, under a lock, never by the
supervisor, whose memory and loop it would burden.

* `store`   one model's vectors: rows of float16 or int8, and the names of their images
* `shelf`   the stores of a state directory, and how far the results were read
* `search`  groups of near vectors, without a table of all pairs
* `bounds`  what a few numbers of two vectors say of their cosine
* `flocks`  which vectors are known to be of one group
"""

from supervisor.mechanism.vectors.search import compute_alone, farthest, group_vectors
from supervisor.mechanism.vectors.shelf import Shelf
from supervisor.mechanism.vectors.store import Entry, VectorStore

__all__ = ["Entry", "Shelf", "VectorStore", "compute_alone", "farthest", "group_vectors"]
