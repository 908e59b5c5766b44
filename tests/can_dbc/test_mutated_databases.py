"""No mutation of an ARXML, KCD or SYM file raises anything but DatabaseError."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.errors import DatabaseError
from tests.can_dbc.test_second_opinion import GENERATED

WORDS = ["-1", "0", "1e400", "nan", "99999999999", "0x", "", "true", "INF", "x"]


@pytest.mark.parametrize("name", ["generated.arxml", "generated.kcd", "generated.sym"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_mutation_raises_anything_but_database_error(name, data):
    """A mutation replaces a number by a word, or a piece of the file by another piece."""
    content = GENERATED[name].decode()
    for _ in range(data.draw(st.integers(1, 3))):
        numbers = [at for at, char in enumerate(content) if char.isdigit()]
        if numbers and data.draw(st.booleans()):
            at = data.draw(st.sampled_from(numbers))
            content = content[:at] + data.draw(st.sampled_from(WORDS)) + content[at + 1 :]
        else:
            at, other = (data.draw(st.integers(0, len(content) - 1)) for _ in range(2))
            content = content[:at] + content[other : other + 20] + content[at + data.draw(st.integers(0, 20)) :]
    with suppress(DatabaseError):
        compile_plan([parse(content.encode(), name.rpartition(".")[2], name)])
