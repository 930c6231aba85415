"""Notebooks run, recorded, judged and reported without a screen."""

import sys

# jsonschema, below nbformat, would compile a grammar of international addresses at each start, for more than a second.
sys.modules.setdefault("rfc3987_syntax", None)
