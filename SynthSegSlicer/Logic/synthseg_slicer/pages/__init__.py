"""Reports as HTML pages: of a scan, and of a cohort. Each is one file that opens without a network."""

from __future__ import annotations

from .cohort_page import CohortEntry, write_cohort_page
from .scan_page import write_scan_page

__all__ = ["CohortEntry", "write_cohort_page", "write_scan_page"]
