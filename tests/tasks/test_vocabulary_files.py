"""Tokenizers from vocab.txt, their special tokens, and what tasks learn of them."""

import pytest
import transformers as tf

import qontext as qx
from qontext.errors import TokenizerError
from qontext.importers.huggingface.files import read_tokenizer
from qontext.tasks.tokenizer import Tokenizer

MPNET = ["<s>", "<pad>", "</s>", "<unk>", "the", "city", "of", "##s", "[UNK]", "paris", ".", "<mask>"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def mpnet(tmp_path):
    tf.MPNetModel(tf.MPNetConfig(vocab_size=12, max_position_embeddings=30, **SIZES)).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(MPNET) + "\n")
    return tmp_path


def test_mpnet_frames_texts_and_pairs_as_hugging_face_does(mpnet):
    mine = Tokenizer(read_tokenizer(mpnet), {})
    theirs = tf.MPNetTokenizer(vocab={piece: i for i, piece in enumerate(MPNET)})
    for text in ("The citys of Paris.", "the <mask> of   <mask>.", "", "zebra [UNK] <s>"):
        assert list(mine.encode([text])[0].ids) == theirs(text)["input_ids"], text
    pair = mine.join(mine.encode_plain("the city"), mine.encode_plain("of paris."))
    want = theirs("the city", "of paris.")
    assert list(pair.ids) == want["input_ids"] == [0, 4, 5, 2, 2, 6, 9, 10, 2]
    assert set(pair.type_ids) == {0}


def test_a_class_in_the_tokenizer_settings_counts_more_than_the_family(mpnet):
    (mpnet / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "city"]))
    (mpnet / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    mine = Tokenizer(read_tokenizer(mpnet), {})
    pair = mine.join(mine.encode_plain("the"), mine.encode_plain("city"))
    assert (pair.ids, pair.type_ids) == ((2, 5, 3, 6, 3), (0, 0, 0, 1, 1))


@pytest.mark.parametrize("family", ["Roberta", "XLMRoberta"])
def test_families_that_have_no_such_file_refuse_it(family, tmp_path, vocabulary):
    config = getattr(tf, f"{family}Config")(vocab_size=len(vocabulary), max_position_embeddings=30, **SIZES)
    getattr(tf, f"{family}Model")(config).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    with pytest.raises(TokenizerError, match=r"vocab\.txt is no tokenizer of .*roberta.*save tokenizer\.json"):
        qx.import_model(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert qx.import_model(tmp_path).config["mask_token_id"] == 4


def test_ids_of_special_tokens_are_known(folder, mpnet):
    config = qx.import_model(folder("Model")[0]).config
    wanted = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert {k: config[f"{k}_token_id"] for k in wanted} == wanted
    config = qx.import_model(mpnet).config
    wanted = {"pad": 1, "cls": 0, "sep": 2, "mask": 11}
    assert {k: config[f"{k}_token_id"] for k in wanted} == wanted


def test_tokens_that_the_folder_names_count_more_than_usual_ones(folder):
    path, _ = folder("ForMaskedLM")
    (path / "tokenizer_config.json").write_text('{"mask_token": {"content": "paris"}}')
    model = qx.import_model(path)
    assert model.config["mask_token_id"] == Tokenizer(model.tokenizer, model.config).mask_id
    assert model.config["mask_token"] == "paris"


def test_a_padding_id_of_a_wrong_type(folder):
    path, _ = folder("Model")
    text = read_tokenizer(path).replace("[PAD]", "[FILL]")
    assert Tokenizer(text, {"pad_token_id": 7}).pad_id == 7
    with pytest.raises(TokenizerError, match="pad_token_id is 'x'"):
        Tokenizer(text, {"pad_token_id": "x"})
