"""The error that says where a condition is wrong.  Pure."""


class ConditionFault(Exception):
    """Says what is wrong with a condition.  `place` counts characters of the expression from 1."""

    def __init__(self, place: int, what: str) -> None:
        super().__init__(f"character {place}: {what}")
        self.place = place
        self.what = what
