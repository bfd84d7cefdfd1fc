"""Quality of a registration: numbers, maps, pictures and one report."""

from MMRegCore.qa.maps import write_maps
from MMRegCore.qa.metrics import Assessment, assess
from MMRegCore.qa.report import write_report

__all__ = ["Assessment", "assess", "write_maps", "write_report"]
