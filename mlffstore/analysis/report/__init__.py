"""The report of a dataset: one HTML file that works offline, and a PDF."""

from __future__ import annotations

from mlffstore.analysis.report.report import write_report

__all__ = ["write_report"]
