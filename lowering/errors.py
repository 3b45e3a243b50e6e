"""What lowering refuses, always with the name of the limit."""

from __future__ import annotations


class LoweringError(ValueError):
    """A region can't be lowered; the message names op, shape, cause and remedy."""


class LimitError(LoweringError):
    """A hardware limit is exceeded; the message starts with the limit's name in `lowering.limits`."""


class LackingError(LoweringError):
    """The overlay in use was built without what an op needs."""
