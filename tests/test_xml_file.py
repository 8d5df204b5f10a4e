"""XML read with one line for what is wrong, and never expanded."""

import pytest

from panomask.errors import InputError
from panomask.xml_file import read_xml


def write(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_document(tmp_path):
    root = read_xml(write(tmp_path, '<?xml version="1.0"?><a k="v"><b>x &amp; y</b><b>2</b></a>'))
    assert root.tag == "a"
    assert root.attrib == {"k": "v"}
    assert [b.text for b in root.findall("b")] == ["x & y", "2"]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    "text",
    [BOMB, BOMB.encode("utf-16"), '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>'],
    ids=["bomb", "bomb in UTF-16", "another file"],
)
def test_entities_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"a\.xml: declares an entity") as e:
        read_xml(write(tmp_path, text))
    assert "\n" not in str(e.value)


def test_attributes_by_default_are_refused(tmp_path):
    """50 000 empty elements, each with 100 kB of its own, would be 4.6 GB."""
    with pytest.raises(InputError, match=r"a\.xml: declares an attribute .*, which is refused"):
        read_xml(write(tmp_path, '<!DOCTYPE r [<!ATTLIST a b CDATA "xx">]><r><a/><a/></r>'))


@pytest.mark.parametrize(
    "text", ["", "<a><b></a>", "no XML", b"\x00\xff\x80", '<?xml encoding="x-none"?><a/>']
)
def test_a_broken_file_is_named(tmp_path, text):
    with pytest.raises(InputError, match=r"a\.xml: broken XML"):
        read_xml(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.xml: file does not exist"):
        read_xml(tmp_path / "none.xml")
    with pytest.raises(InputError, match="cannot be read"):
        read_xml(tmp_path)
