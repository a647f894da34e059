"""Parse untrusted JSON; all malformed JSON raises JSONDecodeError."""

from typing import Any

import simplejson


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        simplejson.JSONDecodeError: The text is not JSON, is nested too deep, or holds a number of
            thousands of digits.
        UnicodeDecodeError: The bytes are not UTF-8.
    """
    try:
        return simplejson.loads(text)
    except (simplejson.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise simplejson.JSONDecodeError("Nested too deep", "", 0) from None
    except ValueError as error:  # Python's limit on the digits of an integer
        raise simplejson.JSONDecodeError(str(error), "", 0) from None
