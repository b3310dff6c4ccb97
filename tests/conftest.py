"""What all tests share: settings of hypothesis. This file's folder is on the import path, for synthetic.py."""

from __future__ import annotations

from hypothesis import settings

# a shared machine stalls now and then, so how long one example took says nothing about the code
settings.register_profile("edgekd", deadline=None, print_blob=True)
settings.load_profile("edgekd")
