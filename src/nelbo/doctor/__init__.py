"""The doctor: what is wrong with a run, a configuration or data, in plain words, with evidence and a remedy.

A check is a function of a Case that yields Findings. One function in one file of this folder is all it takes to
add one; `docs/doctor.md` has a section on each.
"""

from nelbo.doctor.base import Check, Diagnosis, Finding, check, diagnose, examine
from nelbo.doctor.case import Case, NotLooked
from nelbo.doctor.copies import distinct

__all__ = ["Case", "Check", "Diagnosis", "Finding", "NotLooked", "check", "diagnose", "distinct", "examine"]
