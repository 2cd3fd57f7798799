"""The error that the command line prints in one line."""


class UserError(Exception):
    """Something that the person at the command line can mend; the message says how."""
