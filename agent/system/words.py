"""Write a number with its noun: `1 vehicle`, `2,000 vehicles`.  Pure."""


def counted(number: int, noun: str) -> str:
    """Return `number` with `noun`, in the plural unless there is one."""
    plural = "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"
