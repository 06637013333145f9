"""docs/homework.md: its program runs, and the log lines it shows are those of a build."""

import re
import runpy
from pathlib import Path

import numpy as np
from homework_path import bert_config, builder, onnx_weights

import qontext as qx

PAGE = (Path(__file__).parents[2] / "docs" / "homework.md").read_text(encoding="utf-8")


def test_the_program_of_the_page_runs(tmp_path, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(block, encoding="utf-8")
    runpy.run_path(str(tmp_path / "page.py"))
    assert "{110}" in capsys.readouterr().out


def test_the_log_lines_of_the_page_are_true(capsys):
    """The demo model's shape with weights of zeros: fusing does not look at them."""
    folder = Path(qx.__file__).parent / "demo_model"
    config = bert_config.BertConfig(str(folder / "config.json"), False, False, False)
    config.hidden_act = "gelu_new"
    weights = {name: np.zeros(shape, np.float32) for name, shape in onnx_weights.needed_weights(config).items()}
    weights["cls_predictions_bias"] = np.zeros(config.vocab_size, np.float32)
    builder.build_engine(0, config, weights, None, None, 0, verbose=True)
    printed = capsys.readouterr().out
    rules = "gelu|activation|embed_layer_norm|attention|qkv|skip_layer_norm"
    shown = re.findall(rf"^(?:\| .* \| `)?((?:{rules}): .*?)(?:\(\.\.\.\))?(?:` \|)?$", PAGE, re.MULTILINE)
    assert len(shown) == 6
    for line in shown:
        assert line in printed
