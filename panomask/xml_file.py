"""XML files: read with an error that says where they are broken, and without what can harm.

A document that declares entities is refused: expanding them is the one way in which a small XML file fills
the memory ("billion laughs") or reads other files, and no annotation format needs them.
"""

import os
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from panomask.errors import InputError


class _EntityDeclared(Exception):
    """A document type that declares an entity."""


def read_xml(xml_file: str | os.PathLike[str]) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        InputError: the file is missing, cannot be read, is no XML, or declares entities.
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
    try:
        parser.Parse(data, True)
    except _EntityDeclared:
        raise InputError(
            f"{xml_file}: declares an entity (<!ENTITY ...>), which is refused because it can fill the"
            " memory; remove the declaration"
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(
            f"{xml_file}: broken XML ({error}); correct it there, or copy the file again"
        ) from None
    return builder.close()


def _refuse_entity(*_: object) -> None:
    raise _EntityDeclared
