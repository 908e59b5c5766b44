"""Write a number with its noun: `1 vehicle`, `2,000 vehicles`.  Pure."""


def counted(number: int, noun: str) -> str:
    """Return `number` with `noun`, to which "s" is added unless there is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
