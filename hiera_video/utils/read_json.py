"""Read untrusted JSON; all malformed JSON raises JSONDecodeError."""

from typing import Any

import simplejson


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text says.

    Raises:
        simplejson.JSONDecodeError: it is no JSON, is nested too deep, or holds a number of
            thousands of digits.
        UnicodeDecodeError: it is no UTF-8.
    """
    try:
        return simplejson.loads(text)
    except (simplejson.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise simplejson.JSONDecodeError("Nested too deep", "", 0) from None
    except ValueError as error:  # Python's limit on digits
        raise simplejson.JSONDecodeError(str(error), "", 0) from None
