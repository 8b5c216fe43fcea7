"""The one error of this package."""


class HygieneError(ValueError):
    """A set of clips cannot be checked. One line: what is wrong, what to do."""
