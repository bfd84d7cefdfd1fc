"""Quality of a registration: numbers, pictures and one report."""

from MMRegCore.qa.metrics import Assessment, assess
from MMRegCore.qa.report import write_report

__all__ = ["Assessment", "assess", "write_report"]
