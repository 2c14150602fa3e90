"""The report: one HTML file of one run, or of several beside each other, that needs nothing but itself.

    report.write(["digits-s0"])    the page of one run, report.html in its folder

`facts` gathers what is said, `markup` escapes it, `numbers`, `training`, `findings` and `origin` write the sections,
`charts` and `figures` draw, `page` puts them in order, `writing` makes the file. The page loads nothing and runs
nothing; written twice, it is the same file.
"""

from nelbo.report.facts import Asked, Facts, gather
from nelbo.report.page import page
from nelbo.report.writing import Written, write

__all__ = ["Asked", "Facts", "Written", "gather", "page", "write"]
