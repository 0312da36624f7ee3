"""The report of one run or sweep: words, figures and the page. Nothing of it decides."""

from stages.law.report.page import write

__all__ = ["write"]
