"""Content ids: the SHA-256 of a JSON value's compact text.

The text is that of the original (`serde_json`): keys in the order of the document, no spaces, UTF-8 without ASCII
escaping, integers and floats apart, floats as the `ryu` library spells them (`1e16`, `1e-7`, `0.00001`), which is how
`codec` spells them too. So ids are equal to those of stepflow-ai/stepflow for equal values.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from .. import codec
from ..errors import NotSerializable
from .exceptions import NotContent

_ID = re.compile(r"[0-9a-fA-F]{64}")


def canonical_bytes(value: Any) -> bytes:
    """The text that an id is made from.

    Raises:
        NotContent: it is no JSON value, or holds NaN, an infinity or a lone surrogate, or is nested too deep.
    """
    try:
        return bytes(codec.encode_value(value, "The content"))
    except NotSerializable as error:
        raise NotContent(str(error)) from error


def content_id(value: Any) -> str:
    """The id of a value: 64 lower-case hexadecimal digits.

    Raises:
        NotContent: as `canonical_bytes`.
    """
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def is_content_id(text: object) -> bool:
    """Whether this can be an id at all."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None
