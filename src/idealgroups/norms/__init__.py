"""Which layers normalize over channels."""

from .norm import Inventory, Norm
from .recognise import inventory

__all__ = ["Inventory", "Norm", "inventory"]
