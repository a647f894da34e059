"""The error that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can put right; tools print it as it is, without a traceback.

    The message reads "KEY must be RULE, got VALUE. Try X." or names the path and the cause.
    """
