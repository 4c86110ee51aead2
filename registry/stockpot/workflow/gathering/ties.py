"""Whether a base may use its input embeddings as its output's weights."""

from stockpot.entities import CONFIG, WeightsSource, model_files
from stockpot.errors import BadCheckpoint
from stockpot.soup import strict_json
from stockpot.workflow.gathering.places import Places, read_small

_PREDICTS_WORDS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining")
"""Ends of names of transformers' architectures."""


def ties(base: WeightsSource, files: Places) -> bool:
    """Whether the base's configuration tells that it predicts words, perhaps with its embeddings."""
    try:
        beside = model_files(base, files.companions(base))
        content = read_small(beside[CONFIG], files) if beside else None
        config = strict_json.parse(content or b"{}")
    except (BadCheckpoint, ValueError):
        return False
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else ""
    predicts = isinstance(name, str) and name.endswith(_PREDICTS_WORDS)
    return predicts and config.get("tie_word_embeddings") is not False
