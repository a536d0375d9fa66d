"""The processes that touch images: a lease in, items through their recipe, reports out."""
