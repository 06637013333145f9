"""Builds an engine with the flags of demo/BERT's builder_varseqlen.py: padding is removed inside the engine.

    python builder_varseqlen.py -c demo-bert -b 64 -s 64 -o demo.qx

Sequences of any lengths up to -s run in one batch, and only real tokens are computed. Inputs stay `[B, S]` with a
mask: the engine packs them itself.
"""

import sys

from builder import main

if __name__ == "__main__":
    sys.exit(main(packed=True))
