"""The report: one HTML file of one run, or of several beside each other, that needs nothing but itself.

    report.write(["digits-s0"])    the page of one run, report.html in its folder

`gathered` collects the facts; `numbers`, `origin`, `training` and `compared` turn them into values for the templates,
which `rendering` fills; `charts` and `figures` draw, `page` puts the sections in order, `writing` makes the file. The
page loads nothing and runs nothing; written twice, it is the same file.
"""

from nelbo.report.gathered import Facts, Request, gather
from nelbo.report.page import page
from nelbo.report.writing import Written, write

__all__ = ["Facts", "Request", "Written", "gather", "page", "write"]
