"""Stands in IPython's start-up folder: lets the set-up cells think that they are on Colab."""

import os
import sys
import types

sys.modules["google.colab"] = types.ModuleType("google.colab")
if os.environ.get("PRETEND_DEVICE"):  # and that Colab has a graphics card
    import pretend_device  # noqa: F401
