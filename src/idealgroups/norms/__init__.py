"""Which layers normalize over channels."""

from .agreement import disagreement
from .norm import Inventory, Norm
from .recognise import inventory

__all__ = ["Inventory", "Norm", "disagreement", "inventory"]
