"""Language models as subjects of `diagnose` and `intervene`: where texts come from, and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from diagnosing import FIGURES, arrays
from running import run, summary

text_models = pytest.importorskip("text_models")

from sinkablate.diagnose.hugging_face import load_hugging_face  # noqa: E402
from sinkablate.diagnose.texts import TextSource  # noqa: E402
from sinkablate.errors import UserError  # noqa: E402
from sinkablate.vit.tokens import TextTokenType as Kind  # noqa: E402

TEXT = "The cat sat on a mat.\n\nit ran !\nA big red dog, and the sun.\nit was big\n"


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_models.save_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_models.save_folder(tmp_path_factory.mktemp("llama"), "Llama")


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_text_file_is_measured_line_by_line(bert: Path, passages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run("diagnose", "--hf", bert, "--texts", passages, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "texts/s" in outcome.out
    assert "1 text skipped (empty line: 1)" in outcome.out
    found, content = summary(out), arrays(out)
    assert found["texts"] == str(passages)
    assert (found["image_count"], found["num_tokens"]) == (4, 11)
    assert content["image_names"].tolist() == ["line 1", "line 3", "line 4", "line 5"]
    assert content["mass"].shape == (4, 2, 4)
    assert {path.stem for path in (out / "figures").iterdir()} == {*FIGURES} - {"token_maps"}
    assert found["token_maps"] == {"skipped": "a text has no patches"}
    assert not list(out.glob("token_map*"))
    blocks = pl.read_parquet(out / "blocks.parquet")
    assert (
        blocks.select("mass_cls", "mass_sep", "mass_punctuation", "mass_word")
        .sum_horizontal()
        .is_between(0.9, 1.2)
        .all()
    )
    assert blocks["norm_word_mean"].is_finite().all()
    assert "mass_patch" not in blocks.columns


def test_the_size_of_a_batch_changes_nothing(bert: Path, passages: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        run("diagnose", "--hf", bert, "--texts", passages, "--out", tmp_path / str(size), "--batch_size", size)
    one, three = arrays(tmp_path / "1"), arrays(tmp_path / "3")
    for name, values in one.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(three[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_causal_model_on_texts(llama: Path, passages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("diagnose", "--hf", llama, "--texts", passages, "--out", out).code == 0
    blocks = pl.read_parquet(out / "blocks.parquet")
    assert (blocks["mass_bos"] > 0).all()
    assert blocks["mass_cls"].is_nan().all()


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_edits_of_a_language_model(model: str, passages: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = tmp_path / "out"
    edits = "zero_value,donor_value,ordinary_value,redirect"
    arguments = ("--texts", passages, "--heads", "1:0,1:3", "--edits", edits, "--control_images", "2")
    outcome = run("intervene", "--hf", request.getfixturevalue(model), *arguments, "--out", out)
    assert outcome.code == 0, outcome.err
    rows = pl.read_parquet(out / "rows.parquet")
    assert set(rows["edit"]) >= {"zero_value", "redirect"}
    assert set(rows["token_type"]) <= {"cls", "bos", "sep", "punctuation", "word"}
    assert rows["effect"].is_finite().all()


def test_tokens_are_named(bert: Path, llama: Path) -> None:
    encode = load_hugging_face(str(bert), texts=True).encode
    (ids, kinds), count = encode("The cat, sat.")
    assert count == len(ids) == 7
    assert kinds.tolist() == [Kind.CLS, Kind.WORD, Kind.WORD, Kind.PUNCTUATION, Kind.WORD, Kind.PUNCTUATION, Kind.SEP]
    (_, kinds), _ = load_hugging_face(str(llama), texts=True).encode("the cat.")
    assert kinds.tolist() == [Kind.BOS, Kind.WORD, Kind.PUNCTUATION]


def test_a_long_text_is_measured_without_its_end_and_a_short_one_left_out(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the cat ran\n" + "the dog " * 30 + "\ncat\n", encoding="utf-8-sig")
    source = TextSource(str(path), load_hugging_face(str(llama), texts=True).encode)
    assert [(name, tokens.shape) for name, tokens in source.texts] == [("line 1", (2, 3)), ("line 2", (2, 40))]
    assert source.skipped == {"fewer than two tokens": 1}
    assert "truncated: 1 of 2 texts are longer than the 40 tokens that the model accepts" in capsys.readouterr().err


def test_the_passages_of_the_package(bert: Path) -> None:
    source = TextSource("builtin", load_hugging_face(str(bert), texts=True).encode)
    assert len(source) == 64
    assert not source.skipped


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file; name a UTF-8 file with one text per line, or `builtin`"),
        (b"", "there is no text of at least 2 tokens; write one text per line"),
        (b"\n \n", "there is no text of at least 2 tokens; write one text per line"),
        ("caf\xe9\n".encode("latin-1"), "byte 3 is not UTF-8; convert the file, for example with iconv"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(bert: Path, tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    outcome = run("diagnose", "--hf", bert, "--texts", path, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [f"error: texts={path}: {says}"]
    assert not (tmp_path / "out").exists()


def test_a_folder_without_weights_is_refused_with_what_to_do(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"contains no weights; .* name its config\.json"):
        load_hugging_face(str(tmp_path), texts=True)


def test_evaluate_does_not_suggest_an_option_that_it_lacks(bert: Path, tmp_path: Path) -> None:
    outcome = run("evaluate", "--hf", bert, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        f"error: hf={bert}: BertModel reads texts, not images; evaluate takes image models only"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "--hf BERT --images builtin",
            "hf=BERT: BertModel reads texts, not images; use --texts FILE or --texts builtin",
        ),
        ("--hf BERT", "hf=BERT: BertModel reads texts, not images; use --texts FILE or --texts builtin"),
        ("--hf VIT --texts builtin", "hf=VIT: ViTModel reads images, not texts; use --images"),
        (
            "--hf BERT --texts builtin --images builtin",
            "images=builtin: the model is measured on texts=builtin; name one of the two",
        ),
        (
            "--backbone.name vit_tiny_patch16_224 --texts builtin",
            "texts=builtin: only a Hugging Face model (--hf FOLDER) reads texts; use --images",
        ),
        (
            "--hf BARE --texts builtin",
            "hf=BARE: there is no tokenizer in BARE (tokenizer.json, tokenizer_config.json, vocab.txt, vocab.json, "
            "tokenizer.model); save it there with tokenizer.save_pretrained",
        ),
        (
            "--hf GEMMA --texts builtin",
            "hf=GEMMA: Gemma2Model (Gemma2DecoderLayer) cannot be measured: a norm after W_O rescales the sum of all "
            "heads for every token, so the update of a single head is not defined",
        ),
    ],
)
def test_models_and_inputs_that_do_not_belong_together_are_refused(
    bert: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    folders = {"BERT": bert, **{name: tmp_path / name for name in ("VIT", "BARE", "GEMMA")}}
    if "BARE" in arguments:
        text_models.untrained("Bert").save_pretrained(folders["BARE"])
    if "GEMMA" in arguments:
        text_models.untrained("Gemma2", attention="eager", **text_models.GROUPED).save_pretrained(folders["GEMMA"])
    if "VIT" in arguments:
        pytest.importorskip("hugging_face").untrained("ViT").save_pretrained(folders["VIT"])
    for name, folder in folders.items():
        arguments, says = (text.replace(name, str(folder)) for text in (arguments, says))
    outcome = run("diagnose", *arguments.split(), "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [f"error: {says}"]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = text_models.save_folder(tmp_path / "bert")
    text_models.untrained("Bert", vocab_size=10).save_pretrained(folder)
    outcome = run("diagnose", "--hf", folder, "--texts", "builtin", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "but the model knows only 10 tokens; use the tokenizer of this model" in outcome.err


def test_a_diagnosis_on_texts_is_part_of_a_report(bert: Path, passages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("diagnose", "--hf", bert, "--texts", passages, "--out", out).succeeded()
    run("report", out, "--out", tmp_path / "report").succeeded()
    assert (tmp_path / "report" / "index.html").is_file()
