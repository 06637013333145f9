"""Puts the example plugin's folder on the path: the plugin under test lives in a file outside the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "layer_norm_plugin"))
