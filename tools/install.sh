#!/usr/bin/env bash
# Fills $VENV with qontext, its dev extra and the versions of constraints.txt.
# Without an NVIDIA GPU it insists on torch's CPU build, so that gigabytes of CUDA libraries stay away:
# first from whatever index pip is set up with, else from PyTorch's own index of CPU builds.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
version="$(sed -n 's/^torch==//p' constraints.txt)"

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

if ! "$VENV/bin/python" -c "import torch" 2>/dev/null; then
  if command -v nvidia-smi >/dev/null 2>&1; then
    pip install -q "torch==$version"
  else
    pip install -q "torch==$version+cpu" 2>/dev/null ||
      pip install -q "torch==$version+cpu" --extra-index-url https://download.pytorch.org/whl/cpu
  fi
fi
pip install -q "setuptools>=77" -c constraints.txt
# --no-build-isolation: building needs nothing but setuptools, and must not fetch a second torch.
pip install -q --no-build-isolation -e ".[dev]" -c constraints.txt
