"""FlexiBERT against Hugging Face's BERT, and as a Hugging Face model."""

import pytest
import torch
from bert_names import of_bert
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification, FlexiBertModel
from model.space import TransformerDesign

torch.set_num_threads(1)


def bert_pair(activation="gelu"):
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=16,
        hidden_act=activation,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    torch.manual_seed(3)
    bert = BertModel(config).eval()
    ours = FlexiBertModel(FlexiBertConfig.of(config)).eval()
    ours.load_state_dict(of_bert(bert.state_dict()))
    return bert, ours


def batch(vocabulary=50, lengths=(9, 5, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return ids * mask, mask.long()


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_bert(activation):
    bert, ours = bert_pair(activation)
    ids, mask = batch()
    types = (torch.arange(9)[None] > 3).long().expand(3, 9)
    with torch.no_grad():
        theirs = bert(ids, attention_mask=mask, token_type_ids=types)
        mine = ours(ids, mask, types)
    real = mask.bool()
    assert theirs.last_hidden_state[real].std() > 0.5
    torch.testing.assert_close(
        mine.last_hidden_state[real], theirs.last_hidden_state[real], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(mine.pooler_output, theirs.pooler_output, atol=1e-5, rtol=0)


MIXED = TransformerDesign.load(
    {
        "layers": [
            {"hidden": 24, "heads": ["sa_sdp"] * 3, "feed_forward": [32]},
            {"hidden": 16, "heads": ["sa_sdp"] * 5, "feed_forward": [24, 40, 8]},
            {"hidden": 20, "heads": ["sa_sdp"], "feed_forward": [16, 16]},
        ],
        "vocabulary": 50,
        "max_positions": 16,
        "labels": 3,
        "activation": "gelu",
    }
)


PUBLISHED = {
    "l": 3,
    "o": [
        ["c_5_4", "sa_sdp_4", "l_dft_4", "sa_wma_4", "l_dct_4", "c_13_4"],
        ["l_dct_8", "l_dct_8"],
        ["c_9_10", "sa_sdp_10"],
    ],
    "h": [24, 16, 20],
    "f": [[32], [24, 40, 8], [16, 16]],
}
HETEROGENEOUS = TransformerDesign.load(PUBLISHED).model_copy(
    update={"vocabulary": 50, "max_positions": 16, "labels": 3}
)
"""Every operation, mixed within layers; 1 to 3 feed-forward stacks; every width another."""

DESIGNS = [MIXED, HETEROGENEOUS]


def mixed(policy=None, design=MIXED, **kwargs):
    torch.manual_seed(5)
    config = FlexiBertConfig.of(design, policy, initializer_range=0.3, **kwargs)
    return FlexiBertForSequenceClassification(config)


def test_layers_may_differ():
    model = mixed().eval()
    ids, mask = batch()
    made = model(ids, mask, output_hidden_states=True)
    assert made.logits.shape == (3, 3)
    assert [state.shape[-1] for state in made.hidden_states] == [24, 16, 20, 20]
    assert model.encoder.layers[1].head_size == 3  # floor(16 / 5)
    assert model.encoder.layers[1].attention_output.weight.shape == (16, 15)
    assert set(model.products()) >= {"0.projection", "1.feed_forward_3", "pooler", "classifier"}


def test_heads_of_every_operation():
    model = mixed(design=HETEROGENEOUS).eval()
    assert model.design.to_published() == PUBLISHED
    ids, mask = batch()
    made = model(ids, mask, output_hidden_states=True)
    assert [state.shape[-1] for state in made.hidden_states] == [24, 16, 20, 20]
    first, second, third = model.encoder.layers
    assert list(first.heads) == ["c_5", "sa_sdp", "l_dft", "sa_wma", "l_dct", "c_13"]
    assert first.query.weight.shape == first.key.weight.shape == (16, 24)  # c_5 sdp wma c_13
    assert first.value.weight.shape == (24, 24)
    assert second.query is None and second.key is None
    assert third.heads["c_9"].kernel_logits.weight.shape == (1, 9, 10)
    names = {
        "0.c_5.key_depthwise", "0.c_13.kernel_logits", "0.sa_wma.query_weighted", "1.value",
        "2.c_9.key_convolution", "1.projection", "classifier",
    }  # fmt: skip
    assert names <= set(model.products()) and "1.query" not in model.products()


def test_each_head_stands_where_the_design_has_it():
    """A head alone in its layer's output is that of the same place, whatever its neighbours do."""
    model = mixed(design=HETEROGENEOUS).double().eval()
    layer = model.encoder.layers[0]
    valid = torch.ones((2, 7), dtype=torch.bool)
    hidden = torch.randn((2, 7, 24), dtype=torch.float64)
    with torch.no_grad():
        whole = layer.attend(hidden, valid)
        query, key = layer.query(hidden), layer.key(hidden)
        value = layer.value(hidden)
        for number, (name, asked) in enumerate(
            zip(layer.heads, (0, 1, None, 2, None, 3), strict=True)
        ):
            part = slice(4 * number, 4 * number + 4)
            operands = [value[..., part]]
            if asked is not None:
                own = slice(4 * asked, 4 * asked + 4)
                operands = [query[..., own], key[..., own], *operands]
            alone = layer.heads[name](*(x[:, None] for x in operands), valid)[:, 0]
            torch.testing.assert_close(whole[..., part], alone)


def test_heads_are_named_as_the_design_has_them():
    model = mixed(design=HETEROGENEOUS)
    found = {name for name, _ in model.named_parameters() if ".layers.0.heads." in name}
    prefix = "encoder.layers.0.heads."
    assert found == {
        prefix + name
        for head in ("c_5", "c_13")
        for name in (
            f"{head}.key_depthwise.weight", f"{head}.key_convolution.weight",
            f"{head}.key_convolution.bias", f"{head}.kernel_logits.weight",
            f"{head}.kernel_logits.bias",
        )
    } | {prefix + "sa_wma.query_weighted.weight"}  # fmt: skip
    assert not any(".heads." in name for name, _ in mixed().named_parameters())


@pytest.mark.parametrize("design", DESIGNS)
def test_padding_changes_nothing(design):
    model = mixed({"activation_threshold": 0.1}, design).eval()
    ids, mask = batch(lengths=(5,))
    longer = torch.nn.functional.pad(ids, (0, 4), value=7)
    with torch.no_grad():
        short = model(ids, mask).logits
        padded = model(longer, torch.nn.functional.pad(mask, (0, 4))).logits
    torch.testing.assert_close(short, padded)


@pytest.mark.parametrize("design", DESIGNS)
def test_saves_and_loads(tmp_path, design):
    model = mixed({"activation_threshold": 0.05, "gradient_threshold": 1e-4}, design).eval()
    with torch.no_grad():  # none is as a new model has it
        for parameter in model.parameters():
            parameter += 0.01
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is FlexiBertForSequenceClassification
    assert loaded.design == design
    assert TransformerDesign.load(tmp_path / "config.json") == design
    assert TransformerDesign.load(loaded.config) == design
    assert loaded.dynaprop.policy == model.dynaprop.policy
    assert loaded.dynaprop.policy.activation_threshold == 0.05
    ids, mask = batch()
    with torch.no_grad():
        assert torch.equal(loaded(ids, mask).logits, model(ids, mask).logits)
    assert loaded.weights_hash() == model.weights_hash()


def test_initialisation():
    model = FlexiBertForSequenceClassification(FlexiBertConfig.of("bert-tiny"))
    weight = model.encoder.layers[0].query.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.encoder.pooler.bias.any()
    assert (model.encoder.layers[1].attention_norm.weight == 1).all()


def test_initialisation_of_heads():
    design = {
        "layers": [{"hidden": 256, "heads": ["sa_wma", "c_9"], "feed_forward": [8]}],
        "vocabulary": 8,
    }
    heads = FlexiBertForSequenceClassification(FlexiBertConfig.of(design)).encoder.layers[0].heads
    assert torch.equal(heads["sa_wma"].query_weighted.weight, torch.eye(128)[None])
    convolution = heads["c_9"]
    for module in (convolution.key_depthwise, convolution.key_convolution):
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert convolution.kernel_logits.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not convolution.kernel_logits.bias.any() and not convolution.key_convolution.bias.any()


def test_dropout_is_of_attention_alone():
    """Dropout of probabilities touches no head that has none."""
    for head, random in (("sa_wma", True), ("c_5", False), ("l_dft", False)):
        layer = {"hidden": 8, "heads": [head], "feed_forward": [8]}
        config = FlexiBertConfig.of(
            {"layers": [layer], "vocabulary": 50, "max_positions": 16},
            hidden_dropout=0.0, attention_dropout=0.5, initializer_range=0.3,
        )  # fmt: skip
        torch.manual_seed(0)
        model = FlexiBertForSequenceClassification(config).train()
        one, other = (model(*batch()).logits for _ in range(2))
        assert torch.equal(one, other) is not random


@pytest.mark.parametrize("given", ["model", "folder"])
def test_pipeline(tmp_path, given):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    design = HETEROGENEOUS.model_copy(update={"vocabulary": len(words), "labels": 2})
    torch.manual_seed(0)
    config = FlexiBertConfig.of(design, initializer_range=0.3, id2label={0: "no", 1: "yes"})
    model = FlexiBertForSequenceClassification(config).eval()
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    if given == "folder":
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        classify = pipeline("text-classification", str(tmp_path), device="cpu")
    else:
        classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = ["good film", "bad bad bad film film"]
    alone = [classify(text)[0] for text in texts]
    together = classify(texts, batch_size=2, padding=True)
    for text, one, other in zip(texts, alone, together, strict=True):
        ids = torch.tensor([[2, *(words.index(word) for word in text.split()), 3]])
        expected = model(ids).logits[0].softmax(-1)
        assert one["label"] == other["label"] == ("no", "yes")[int(expected.argmax())]
        assert one["score"] == pytest.approx(expected.max().item(), abs=1e-6)
        assert other["score"] == pytest.approx(one["score"], abs=1e-6)


def test_refuses_long_sequences_and_other_masks():
    model = mixed()
    with pytest.raises(ValueError, match="max_positions = 16 long, not 17"):
        model(torch.ones((1, 17), dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape of input_ids, \(1, 4\), not \(1, 3\)"):
        model(torch.ones((1, 4), dtype=torch.int64), torch.ones((1, 3), dtype=torch.int64))


@pytest.mark.parametrize("design", DESIGNS)
def test_hugging_face_trainer(tmp_path, design):
    policy = {"activation_threshold": 0.05, "gradient_threshold": 1e-4}
    model = mixed(policy, design, hidden_dropout=0.0, attention_dropout=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids, mask = batch(lengths=(9, 5, 1, 7))
    rows = [
        {"input_ids": ids[i], "attention_mask": mask[i], "labels": torch.tensor(i % 3)}
        for i in range(4)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=20,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        learning_rate=3e-3,
        logging_steps=1,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    for name, parameter in model.named_parameters():
        assert (parameter != before[name]).any(), name
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        predictions = loaded(ids, mask).logits.numpy()
    assert trainer.predict(rows).predictions == pytest.approx(predictions, abs=1e-5)
    assert (tmp_path / "saved" / "README.md").is_file()
