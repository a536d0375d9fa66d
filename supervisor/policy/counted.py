"""Counts for people."""


def counted(number: int, noun: str) -> str:
    """Returns how many there are of what a regular noun names: `1 image`, `2,000 images`."""
    plural = f"{noun}es" if noun.endswith(("ch", "sh", "s")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
