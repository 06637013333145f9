"""docs/plugins.md: its blocks run, in order, as one program."""

import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("page.py")
    said = capsys.readouterr().out
    assert "my_company.square square bfloat16 equals the reference" in said
    assert "my_company.square cube float32 power is 3, this kernel squares" in said
    assert "input 'weight' has shape [7]; allowed: [E] axis E is 8 elsewhere and 7 here" in said
    assert "scaled_power: 2 operators (2 Mul) -> ScaledPower" in said
    assert "operator 'ScaledPower' version 1 is missing" in said
