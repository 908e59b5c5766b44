"""The encoding of a database: certain, named by the user, or guessed with a note."""

import pytest

from can_dbc.errors import DatabaseError
from tests.can_dbc.dbc_reader.small import OIL, dbc, plan_of, samples

WORDS = {
    "gbk": ("停车", "倒档"),
    "gb18030": ("停车", "倒档"),
    "big5": ("停車", "倒檔"),
    "shift_jis": ("駐車", "ソ表"),
    "euc_jp": ("駐車", "後退"),
    "euc_kr": ("주차", "후진"),
    "cp1250": ("Zpátečka", "Řazení"),
    "cp1251": ("Стоянка", "Задний"),
    "cp1253": ("Στάση", "Όπισθεν"),
    "cp1254": ("Park şeridi", "İleri"),
    "latin-1": ("Rückwärts", "à l'arrêt"),
    "cp1252": ("Rückwärts €", "œuvre"),
    "utf-8": ("停车", "Задний"),
    "utf-16": ("停车", "Задний"),
}
# The comment ends with a character whose last byte is a backslash in Shift-JIS, Big5 and GBK.
ENDS = {"shift_jis": "能力表", "big5": "許功", "gbk": "誠", "gb18030": "誠"}
FRAMES = ("0000010000000000", "0000020000000000")


def text_of(encoding):
    one, other = WORDS[encoding]
    comment = f'CM_ SG_ 801 Oil "{ENDS.get(encoding, one)}";'
    return dbc(OIL.replace("(1,-40)", "(1,0)"), comment, f'VAL_ 801 Oil 1 "{one}" 2 "{other}" ;', 'CM_ "end";')


@pytest.mark.parametrize("encoding", WORDS)
def test_texts_are_read_by_the_encoding_that_the_user_names(encoding):
    content = text_of(encoding).encode(encoding)
    assert samples(content, *FRAMES, encoding=encoding) == [{"Oil": word} for word in WORDS[encoding]]
    assert plan_of(content, encoding).notes == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_certain(encoding):
    content = text_of("utf-8").encode(encoding)
    assert samples(content, *FRAMES) == [{"Oil": word} for word in WORDS["utf-8"]]
    assert plan_of(content).notes == ()


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "euc_kr", "cp1250", "cp1251", "cp1252"])
def test_what_is_only_guessed_is_noted_and_decodes_all_the_same(encoding):
    content = text_of(encoding).encode(encoding)
    assert [len(found) for found in samples(content, *FRAMES)] == [1, 1]
    (note,) = plan_of(content).notes
    assert note.startswith("small.dbc: line 13: the text is not UTF-8 and was read as cp1252, as in ")
    assert "set the encoding of the database" in note


def test_a_guess_is_right_for_western_europe():
    content = text_of("cp1252").encode("cp1252")
    assert samples(content, *FRAMES) == [{"Oil": word} for word in WORDS["cp1252"]]


@pytest.mark.parametrize("encoding", ["shift_jis", "big5", "gbk"])
def test_a_backslash_within_a_character_ends_no_text_and_hides_no_entry(encoding):
    """Read as cp1252, the last byte of the comment is a backslash before the closing quote."""
    content = text_of(encoding).encode(encoding)
    assert b'\\";' in content
    assert all("Oil" in found for found in samples(content, *FRAMES))


def test_a_wrong_encoding_names_file_line_and_remedy():
    content = dbc(OIL, 'CM_ "\xff\xff\xff";').encode("latin-1")
    with pytest.raises(DatabaseError, match=r"small\.dbc: line 13: the text is not gbk; name the encoding that"):
        plan_of(content, "gbk")


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "a\0b", ""])
def test_an_unknown_encoding_is_an_error_with_examples(encoding):
    with pytest.raises(DatabaseError, match=r"small\.dbc: encoding .* is unknown; name one of .* such as gbk"):
        plan_of(dbc(OIL), encoding)
