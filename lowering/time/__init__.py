"""Modelled time: what each event costs, closed forms for matrix products and encoders, and their calibration.

Every number that leaves this package is modelled, for a stated clock; nothing here was measured by this project.
"""

from __future__ import annotations

from lowering.time.costs import Costs

__all__ = ["Costs"]
