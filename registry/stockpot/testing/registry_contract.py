"""What every tracker promises about registered models and aliases: a part of
`stockpot.testing.tracker_contract`.
"""

import pytest

from stockpot.entities import RegisteredModel, digest_of_bytes
from stockpot.errors import BadRequest
from stockpot.testing.tracker_backend import Backend, fresh


def listed(backend: Backend, name: str) -> RegisteredModel | None:
    """The model as it stands in the list of all, which agrees with what is told of it alone."""
    alone = backend.tracker.registered_model(name)
    among = {model.name: model for model in backend.tracker.registered_models()}
    assert among.get(name) == alone
    return alone


class RegistryContract:
    """Promises of `stockpot.ports.Tracker` about registered models."""

    def test_a_model_is_listed_with_its_aliases_wherever_they_point(self, backend: Backend) -> None:
        name, other = fresh("it's a model"), fresh("another")
        first, second = backend.add_version(name), backend.add_version(name)
        backend.add_version(other)
        backend.move_alias(name, "champion", first)
        backend.move_alias(name, "candidate", second)
        model = listed(backend, name)
        assert model is not None
        assert (model.name, model.aliases, model.anchor) == (name, {"champion": "1", "candidate": "2"}, None)
        backend.move_alias(name, "champion", second)
        backend.move_alias(name, "candidate", None)
        moved = listed(backend, name)
        assert moved is not None
        assert (moved.aliases, moved.born) == ({"champion": "2"}, model.born)
        assert model.born > 0
        assert [
            one.name for one in backend.tracker.registered_models() if one.name in {name, other}
        ] == sorted([name, other])

    def test_a_version_that_is_deleted_takes_its_alias_with_it(self, backend: Backend) -> None:
        name = fresh("model")
        first, _ = backend.add_version(name), backend.add_version(name)
        backend.move_alias(name, "champion", first)
        backend.remove_version(name, first)
        model = listed(backend, name)
        assert model is not None
        assert model.aliases == {}
        with pytest.raises(BadRequest):
            backend.tracker.version(f"models:/{name}/{first}")
        backend.tracker.set_alias(name, "champion", "2")
        assert backend.tracker.version(f"models:/{name}@champion").version == "2"

    def test_when_a_version_was_made_tells_it_from_one_that_follows(self, backend: Backend) -> None:
        name = fresh("model")
        before = backend.tracker.version(f"models:/{name}/{backend.add_version(name)}")
        assert before.created > 0
        assert backend.tracker.version(before.uri).created == before.created
        backend.remove_version(name, before.version)
        after = backend.tracker.version(f"models:/{name}/{backend.add_version(name)}")
        assert after.created > before.created

    def test_an_anchor_and_the_birth_go_with_a_model_that_is_renamed_and_not_with_one_made_anew(
        self, backend: Backend
    ) -> None:
        name, renamed = fresh("model"), fresh("renamed")
        digest = digest_of_bytes(b"the newest entry")
        backend.add_version(name)
        backend.tracker.anchor_trail(name, digest_of_bytes(b"an older one"))
        backend.tracker.anchor_trail(name, digest)
        before = listed(backend, name)
        assert before is not None
        assert before.anchor == digest
        backend.rename_model(name, renamed)
        assert listed(backend, name) is None
        after = listed(backend, renamed)
        assert after is not None
        assert (after.born, after.anchor) == (before.born, digest)
        backend.remove_model(renamed)
        backend.add_version(renamed)
        anew = listed(backend, renamed)
        assert anew is not None
        assert anew.anchor is None
        assert anew.born > before.born

    def test_a_model_that_is_not_there_cannot_be_anchored(self, backend: Backend) -> None:
        with pytest.raises(BadRequest):
            backend.tracker.anchor_trail(fresh("nobody's"), digest_of_bytes(b"x"))
