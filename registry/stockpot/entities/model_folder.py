"""What lies beside weights and tells their model: configuration and tokenizer, files of plain data."""

import json
import re
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
"""Beside a configuration: the model is the first of several modules of sentence-transformers."""
SETTINGS = "sentence_bert_config.json"
"""Of that first one."""
MODULE_FILES = DATA_FILES | {MODULES, SETTINGS, "config_sentence_transformers.json"}
MODULE_FOLDER = re.compile(r"\d{1,2}_[A-Z][A-Za-z]{0,40}", re.ASCII)
"""The name of the folder in which another one has its configuration."""
_MODULE = re.compile(r"sentence_transformers(\.[a-z_]+)*\.(?P<kind>Transformer|Pooling|Normalize)", re.ASCII)
"""Modules of the library itself that can be made of data."""
COMPONENTS = ("tokenizer", "image_processor", "feature_extractor", "processor")
"""Folders of ``components/`` in which MLflow's transformers flavour keeps them."""
MOST_BYTES = 64 << 20
"""Of one such file: vocabularies of a million words are smaller."""


def model_files(source: WeightsSource, companions: Sequence[WeightsSource]) -> Mapping[str, WeightsSource]:
    """The data files of a model's folder, by name; empty where no configuration lies beside the weights.

    Of a model that is the first of several modules, the others' configurations are among them, by names such
    as ``1_Pooling/config.json``.
    """
    folder = source.inner.rpartition("/")[0]
    found = data_files(source, companions)
    beside = found.get(CONFIG)
    return found if beside is not None and beside.inner.rpartition("/")[0] == folder else {}


def data_files(source: WeightsSource, companions: Sequence[WeightsSource]) -> Mapping[str, WeightsSource]:
    """The same, whether there is a configuration or not."""
    folder = source.inner.rpartition("/")[0]
    several = any(file.inner == f"{folder}/{MODULES}".lstrip("/") for file in companions)
    wanted = MODULE_FILES if several else DATA_FILES
    root = folder.rpartition("/")[0]
    places = [folder, *(f"{root}/components/{name}".lstrip("/") for name in COMPONENTS)]
    found: dict[str, WeightsSource] = {}
    for place in places:
        for file in companions:
            where, _, name = file.inner.rpartition("/")
            if file.size is None or file.size > MOST_BYTES:
                continue
            if where == place and name in wanted:
                found.setdefault(name, file)
            parent, _, last = where.rpartition("/")
            if several and (parent, name) == (folder, CONFIG) and MODULE_FOLDER.fullmatch(last):
                found.setdefault(f"{last}/{name}", file)
    return found


def tokenizer_files(files: Mapping[str, WeightsSource]) -> Mapping[str, WeightsSource]:
    """Those that belong to a tokenizer."""
    return {name: file for name, file in files.items() if name not in NO_TOKENIZER}


def modules_in(text: str | bytes) -> tuple[tuple[str, str], ...]:
    """Kind and folder of each module that a ``modules.json`` names: the ``Transformer`` first, in that file's
    own folder, then one ``Pooling``, then perhaps one ``Normalize``.

    Raises ValueError for others: of a class of somebody else's, or with weights of their own.
    """
    try:
        found = [(str(entry["type"]), str(entry["path"])) for entry in json.loads(text)]
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{MODULES} is no list of modules") from error
    named = [(_MODULE.fullmatch(kind), path) for kind, path in found]
    modules = tuple((match["kind"], path) for match, path in named if match)
    kinds = tuple(kind for kind, _ in modules)
    if len(modules) < len(found) or kinds not in {
        ("Transformer", "Pooling"),
        ("Transformer", "Pooling", "Normalize"),
    }:
        told = ", ".join(kind[:100] for kind, _ in found[:8])
        raise ValueError(
            f"{MODULES} names {told}: Transformer, Pooling and Normalize are known, in this order"
        )
    if modules[0][1] or not all(MODULE_FOLDER.fullmatch(path) for _, path in modules[1:]):
        raise ValueError(f"{MODULES} names other folders than sentence-transformers does")
    return modules
