"""XML files: read with an error that says where they are broken, and without what can harm.

A document that declares entities or attributes is refused: expanding entities ("billion laughs") and giving
every element an attribute by default are the ways in which a small XML file fills the memory or reads other
files, and no annotation format needs them.
"""

import os
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from panomask.errors import InputError


class _Declared(Exception):
    """A document type that declares an entity or attribute; the text says which."""


def read_xml(xml_file: str | os.PathLike[str]) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        InputError: the file is missing, cannot be read, is no XML, or declares entities or attributes.
    """
    try:
        data = Path(xml_file).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{xml_file}: file does not exist; put it there, or correct the path") from None
    except OSError as error:
        raise InputError(f"{xml_file}: cannot be read ({error.strerror}); an XML file is needed") from None
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    parser.AttlistDeclHandler = _refuse_attribute
    try:
        parser.Parse(data, True)
    except _Declared as declared:
        raise InputError(
            f"{xml_file}: declares an {declared}, which is refused because it can fill the"
            " memory; remove the declaration"
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(
            f"{xml_file}: broken XML ({error}); correct it there, or copy the file again"
        ) from None
    return builder.close()


def _refuse_entity(*_: object) -> None:
    raise _Declared("entity (<!ENTITY ...>)")


def _refuse_attribute(*_: object) -> None:
    raise _Declared("attribute (<!ATTLIST ...>)")
