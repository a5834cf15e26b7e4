"""A page of HTML in one file: it asks no server for anything, and only its own script runs in it.

Its Content-Security-Policy names the digests of its one style and its one script. So a browser refuses any other, even
if something was not escaped. The page has no ``style`` and no ``on...`` attributes, which the policy forbids as well.
Colours follow the reader's choice of dark or light, and say nothing that no word says.
"""

from __future__ import annotations

import base64
import hashlib

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1b1d21;--dim:#565a63;--line:#d3d6dc;--plate:#f4f5f7;--link:#0b57c2;
--good:#14602b;--good-back:#d8f5df;--bad:#9c1c14;--bad-back:#ffe0db;--odd:#664500;--odd-back:#ffefc2}
@media(prefers-color-scheme:dark){:root{--back:#14161a;--text:#e5e6ea;--dim:#a3a8b3;--line:#383c45;--plate:#1d2026;
--link:#8ab8ff;--good:#86e3a0;--good-back:#12351e;--bad:#ffb3a9;--bad-back:#55160f;--odd:#f2cb6c;--odd-back:#423400}}
*{box-sizing:border-box}
html{background:var(--back);color:var(--text);font:16px/1.45 system-ui,sans-serif}
body{margin:0 auto;padding:1rem;max-width:100rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0 0 .3rem}
h2{font-size:1.1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0}
.dim,small{color:var(--dim)}
small{font-size:.85em}
:focus-visible{outline:3px solid var(--link);outline-offset:1px}
table{border-collapse:collapse}
th,td{padding:.2rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.a{color:var(--good);background:var(--good-back)}
.x{color:var(--bad);background:var(--bad-back)}
.w{color:var(--odd);background:var(--odd-back)}
svg{display:block;max-width:100%}
svg path{fill:var(--dim)}
svg .a{fill:var(--good)}
svg .x{fill:var(--bad)}
svg .w{fill:var(--odd)}
"""


def escaped(text: str) -> str:
    """Return text as it stands in HTML, also within the quotes of an attribute."""
    return text.translate(ESCAPES)


def document(title: str, body: str, *, style: str = "", script: str = "", refresh: float = 0) -> str:
    """Return a page. ``style`` and ``script`` are its own, and trusted. ``body`` is HTML, and ``title`` is text.

    ``refresh`` is the number of seconds after which the browser reads the page again. 0 means never.
    """
    style = STYLE + style
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script) if script else _NONE}; "
        f"base-uri {_NONE}; form-action {_NONE}"
    )
    again = f'<meta http-equiv="refresh" content="{refresh:.0f}">\n' if refresh else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{again}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{escaped(title)}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"{f'<script>{script}</script>' if script else ''}\n</body>\n</html>\n"
    )


_NONE = "'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
