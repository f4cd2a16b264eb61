"""A page in one file: nothing is loaded from elsewhere, so it opens anywhere, also years later."""

from __future__ import annotations

from collections.abc import Sequence

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def html_page(title: str, style: str, body: Sequence[str]) -> str:
    """The HTML of a page; whoever calls has escaped what is not markup.

    Args:
      title: for the browser's bar.
      style: CSS.
      body: parts of what stands in `main`, in order.
    """
    return _PAGE.format(title=title, style=style, body="\n".join(body))
