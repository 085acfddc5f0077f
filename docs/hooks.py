"""
docs.hooks
##########
What MkDocs calls while it builds the site. Docstrings name other objects by Sphinx's roles; the site shows the name
alone.
"""

import re

ROLE = re.compile(r":(?:attr|class|func|meth|mod):\s*(?=<code>)")


def on_page_content(html: str, **_) -> str:
    return ROLE.sub("", html)
