"""FlexiBERT against Hugging Face's BERT, and as a Hugging Face model."""

import pytest
import torch
from bert_names import of_bert
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    Trainer,
    TrainingArguments,
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


def mixed(policy=None, **kwargs):
    torch.manual_seed(5)
    config = FlexiBertConfig.of(MIXED, policy, initializer_range=0.3, **kwargs)
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


def test_padding_changes_nothing():
    model = mixed({"activation_threshold": 0.1}).eval()
    ids, mask = batch(lengths=(5,))
    longer = torch.nn.functional.pad(ids, (0, 4), value=7)
    with torch.no_grad():
        short = model(ids, mask).logits
        padded = model(longer, torch.nn.functional.pad(mask, (0, 4))).logits
    torch.testing.assert_close(short, padded)


def test_saves_and_loads(tmp_path):
    model = mixed({"activation_threshold": 0.05, "gradient_threshold": 1e-4}).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is FlexiBertForSequenceClassification
    assert loaded.design == MIXED
    assert TransformerDesign.load(tmp_path / "config.json") == MIXED
    assert TransformerDesign.load(loaded.config) == MIXED
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


def test_refuses_long_sequences_and_other_masks():
    model = mixed()
    with pytest.raises(ValueError, match="max_positions = 16 long, not 17"):
        model(torch.ones((1, 17), dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape of input_ids, \(1, 4\), not \(1, 3\)"):
        model(torch.ones((1, 4), dtype=torch.int64), torch.ones((1, 3), dtype=torch.int64))


def test_hugging_face_trainer(tmp_path):
    model = mixed({"activation_threshold": 0.05, "gradient_threshold": 1e-4})
    before = model.encoder.layers[1].query.weight.detach().clone()
    ids, mask = batch(lengths=(9, 5, 1, 7))
    rows = [
        {"input_ids": ids[i], "attention_mask": mask[i], "labels": torch.tensor(i % 3)}
        for i in range(4)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        learning_rate=1e-2,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert (model.encoder.layers[1].query.weight != before).any()
    assert trainer.predict(rows).predictions.shape == (4, 3)
