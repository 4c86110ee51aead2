"""What lies beside weights and tells their model: configuration and tokenizer, files of plain data."""

from collections.abc import Mapping, Sequence

from stockpot.entities.checkpoint import WeightsSource

CONFIG = "config.json"
"""The file that makes a folder a model's, as Hugging Face's ``save_pretrained`` writes it."""
DATA_FILES = frozenset(
    {
        *(CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json"),
        *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model"),
    }
)
"""Nothing else of a stranger's folder is taken: no code, no pickles."""
NO_TOKENIZER = frozenset(
    {CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json"}
)
MODULES = "modules.json"
"""Beside a configuration: sentence-transformers does more with the model's outputs, pooling for example."""
COMPONENTS = ("tokenizer", "image_processor", "feature_extractor", "processor")
"""Folders of ``components/`` in which MLflow's transformers flavour keeps them."""
MOST_BYTES = 64 << 20
"""Of one such file: vocabularies of a million words are smaller."""


def model_files(source: WeightsSource, companions: Sequence[WeightsSource]) -> Mapping[str, WeightsSource]:
    """The data files of a model's folder, by name; empty where no configuration lies beside the weights, and
    where the model is only the first of several modules.
    """
    folder = source.inner.rpartition("/")[0]
    if any(file.inner == f"{folder}/{MODULES}".lstrip("/") for file in companions):
        return {}
    found = data_files(source, companions)
    beside = found.get(CONFIG)
    return found if beside is not None and beside.inner.rpartition("/")[0] == folder else {}


def data_files(source: WeightsSource, companions: Sequence[WeightsSource]) -> Mapping[str, WeightsSource]:
    """The same, whether there is a configuration or not."""
    folder = source.inner.rpartition("/")[0]
    root = folder.rpartition("/")[0]
    places = [folder, *(f"{root}/components/{name}".lstrip("/") for name in COMPONENTS)]
    found: dict[str, WeightsSource] = {}
    for place in places:
        for file in companions:
            where, _, name = file.inner.rpartition("/")
            if where == place and name in DATA_FILES and file.size is not None and file.size <= MOST_BYTES:
                found.setdefault(name, file)
    return found


def tokenizer_files(files: Mapping[str, WeightsSource]) -> Mapping[str, WeightsSource]:
    """Those that belong to a tokenizer."""
    return {name: file for name, file in files.items() if name not in NO_TOKENIZER}
