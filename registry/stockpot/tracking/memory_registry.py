"""Registered models, versions and aliases of the tracker in memory, and what people do with them."""
# ruff: noqa: D102 - the port's docstrings are the contract

import time
from collections.abc import Mapping
from dataclasses import replace

from stockpot.entities import Digest, ModelVersion, RegisteredModel
from stockpot.entities.tags import ALIAS
from stockpot.errors import BadRequest, NotPermitted
from stockpot.tracking.names import VERSION_URI


class MemoryRegistry:
    """A Model Registry in this process's memory."""

    def __init__(self, *, writable: bool) -> None:
        self.writable = writable
        self.versions_kept: dict[str, list[ModelVersion]] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.models_born: dict[str, int] = {}
        self._newest = 0
        """The last birth, of a model or a version."""
        self.anchors: dict[str, str] = {}

    def add_version(
        self,
        model: str,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        model_id: str | None = None,
    ) -> str:
        """Register a version by other hands. Returns its number."""
        return self._new_version(model, run_id, model_id, dict(tags or {})).version

    def _new_version(
        self, model: str, run_id: str | None, model_id: str | None, tags: Mapping[str, str]
    ) -> ModelVersion:
        versions = self.versions_kept.setdefault(model, [])
        number = 1 + max((int(version.version) for version in versions), default=0)
        versions.append(ModelVersion(model, str(number), run_id, model_id, tags, created=self.tick()))
        return versions[-1]

    def move_alias(self, model: str, alias: str, version: str | None) -> None:
        """As a person does in MLflow: point it at a version, or remove it."""
        if version is None:
            self.aliases.pop((model, alias), None)
        else:
            self.aliases[model, alias] = self.version(f"models:/{model}/{version}").version

    def remove_version(self, model: str, version: str) -> None:
        """As a person does in MLflow: aliases that point at it go with it."""
        self.versions_kept[model] = [kept for kept in self.versions_kept[model] if kept.version != version]
        self.aliases = {key: at for key, at in self.aliases.items() if (key[0], at) != (model, version)}

    def remove_model(self, model: str) -> None:
        """As a person does in MLflow."""
        del self.versions_kept[model]
        self.aliases = {key: at for key, at in self.aliases.items() if key[0] != model}
        for kept in (self.models_born, self.anchors):
            kept.pop(model, None)

    def rename_model(self, model: str, name: str) -> None:
        """As a person does in MLflow: its birth, tags and aliases stay."""
        self._born(model)
        versions = self.versions_kept.pop(model)
        self.versions_kept[name] = [replace(version, name=name) for version in versions]
        self.aliases = {(name if m == model else m, alias): at for (m, alias), at in self.aliases.items()}
        self.models_born[name] = self.models_born.pop(model)
        if model in self.anchors:
            self.anchors[name] = self.anchors.pop(model)

    def _born(self, model: str) -> int:
        """No two models of one MLflow in the same millisecond."""
        if model not in self.models_born:
            self.models_born[model] = self.tick()
        return self.models_born[model]

    def tick(self) -> int:
        """Now, in milliseconds since the epoch, and later than before."""
        self._newest = max(self._newest + 1, round(time.time() * 1000))
        return self._newest

    def registered_models(self) -> tuple[RegisteredModel, ...]:
        found = map(self.registered_model, sorted(self.versions_kept))
        return tuple(model for model in found if model is not None)

    def registered_model(self, name: str) -> RegisteredModel | None:
        if name not in self.versions_kept:
            return None
        aliases = {alias: at for (model, alias), at in self.aliases.items() if model == name}
        return RegisteredModel(name, self._born(name), aliases, self.anchors.get(name))

    def anchor_trail(self, model: str, digest: Digest) -> None:
        self._require_writable("registered model")
        if model not in self.versions_kept:
            raise BadRequest(f"no registered model {model!r}", mend="name another")
        self.anchors[model] = digest

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._require_writable("alias")
        found = self.version(f"models:/{model}/{version}")
        versions = self.versions_kept[model]
        place = next(i for i, kept in enumerate(versions) if kept.version == found.version)
        versions[place] = replace(found, tags={**found.tags, ALIAS: found.given_too(alias)}, aliases=())
        self.aliases[model, alias] = version

    def point_alias(self, model: str, alias: str, version: str) -> None:
        self._require_writable("alias")
        self.version(f"models:/{model}/{version}")
        self.aliases[model, alias] = version

    def version(self, uri: str) -> ModelVersion:
        parts = VERSION_URI.fullmatch(uri)
        name, number = (parts["name"], parts["version"]) if parts else ("", None)
        number = number or (self.aliases.get((name, parts["alias"])) if parts else None)
        found = next((v for v in self.versions_kept.get(name, []) if v.version == number), None)
        if found is None:
            raise BadRequest(f"no {uri}", mend="write models:/NAME/VERSION or models:/NAME@ALIAS")
        aliases = sorted(
            alias for (model, alias), at in self.aliases.items() if (model, at) == (name, number)
        )
        return replace(found, aliases=tuple(aliases))

    def _require_writable(self, what: str) -> None:
        if not self.writable:
            raise NotPermitted(f"writing: {what}", mend="ask for the right to")
