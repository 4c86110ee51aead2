"""The plain search beside the fast one: what `verify_exact` asks for."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from stockpot.entities import Bound, Composition, Outcome, Recipe, Score, Selection, Trial, short
from stockpot.errors import NotExact
from stockpot.selection import run_selection
from stockpot.workflow.selecting.exactness import require_same_scores, require_same_search
from stockpot.workflow.selecting.watched import Heard, PlainEvaluator, score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, SelectionMethod, Watcher
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


class Verification:
    """Runs searches again with full passes, on an evaluator that remembers nothing, and compares.

    `fast` is the evaluator of the searches, which remembers what the candidates scored by themselves.
    """

    def __init__(
        self, plain: "Evaluator", fast: "SharedEvaluator", ranking: "Ranking", watch: "Watcher"
    ) -> None:
        self._plain = PlainEvaluator(plain, fast.aim)
        self._watch = watch
        self._names = {c.checkpoint.digest: f"{c.run.name} ({c.run.run_id})" for c in ranking.candidates}
        self._alone: dict[Trial, Outcome] = {
            Trial(recipe): score_in_full(recipe, fast) for recipe in (Recipe.mean([d]) for d in self._names)
        }

    def compare(
        self, name: str, fast: Selection, outcomes: Mapping[Trial, Outcome], method: "SelectionMethod"
    ) -> None:
        """Run the method, which is a fresh one, and compare it with what the fast one did and was told.

        Says what agrees. Raises BadTask where a recipe has two scores, NotExact for any other difference.
        """
        found = self._run(name, fast, method)
        told = {**self._alone, **outcomes}
        scores = {trial.recipe: self._score(trial.recipe) for trial in told}
        full = [(t.recipe, o, scores[t.recipe]) for t, o in told.items() if isinstance(o, Score)]
        require_same_scores(full, self._named)
        try:
            agreement = require_same_search(fast, found, told, scores, self._named)
        except NotExact:
            # Scores behind a bound are not known. They may be what differs from pass to pass.
            bounded = [t.recipe for t, outcome in told.items() if isinstance(outcome, Bound)]
            again = ((recipe, scores[recipe], self._plain.score(recipe)) for recipe in bounded)
            require_same_scores(again, self._named)
            raise
        self._watch.say(f"{name}: the plain search agrees: {agreement}")

    def _run(self, name: str, fast: Selection, method: "SelectionMethod") -> Selection:
        stage = f"verify: {name}"
        self._watch.start(stage, method.most_soups)
        heard = Heard(partial(self._watch.advance, stage))

        def as_far_as_the_fast_one() -> bool:
            return not fast.complete and len(heard.outcomes) >= len(fast.steps)

        return run_selection(method, self._plain, stop=as_far_as_the_fast_one, heard=heard)

    def _score(self, recipe: Composition) -> Score:
        return self._plain.scores.get(recipe) or self._plain.score(recipe)

    def _named(self, recipe: Composition) -> str:
        last = self._names.get(recipe.checkpoints[-1], "the base")
        if recipe.is_soup:
            return f"the soup {short(recipe.digest)} of {len(recipe.checkpoints)}, {last} last"
        return last
