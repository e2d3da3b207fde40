"""Names of BERT's parameters in FlexiBERT."""

PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.0",
    "output.dense": "feed_forward.1",
    "output.LayerNorm": "feed_forward_norm",
}


def of_bert(source):
    """Parameters of Hugging Face's BERT by the names that FlexiBERT has for them."""
    target = {}
    for name, value in source.items():
        name = name.replace("embeddings.LayerNorm", "embeddings.norm")
        for part in ("word", "position", "token_type"):
            name = name.replace(f"embeddings.{part}_embeddings", f"embeddings.{part}")
        name = name.replace("encoder.layer.", "layers.").replace("pooler.dense", "pooler")
        for theirs, mine in PARTS.items():
            if name.rpartition(".")[0].partition(".")[2].partition(".")[2] == theirs:
                name = name.replace(theirs, mine)
        target[name] = value
    return target
