"""The file of policies: what it says, and what is wrong with it, all at once."""

from pathlib import Path

import pytest

from stockpot.errors import BadRequest
from stockpot.testing.signers import plain_key
from stockpot.workflow.promotion.policies import EXAMPLE, Policies, Policy, read_policies


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policies.toml"


def policies_of(file: Path, text: str) -> Policies:
    file.write_text(text)
    return read_policies(file)


def faults_of(file: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(BadRequest, match=r"policies.toml cannot be used") as error:
        policies_of(file, text)
    assert "[model.birds]" in error.value.mend
    return error.value.faults


def test_the_example_that_a_missing_file_is_mended_with_is_a_file_of_policies(file: Path) -> None:
    with pytest.raises(BadRequest, match=r"policies.toml cannot be read: No such file") as error:
        read_policies(file)
    assert EXAMPLE in error.value.mend
    policy = policies_of(file, EXAMPLE).of("birds")
    assert policy == Policy(
        task="arrays",
        task_args={"data": "/data/birds.npz", "model": "birds.net:make"},
        shifts=("fog", "night"),
        max_latency=1.2,
        max_size=1.5,
    )
    request = policy.request("birds")
    assert (request.model, request.report_on, request.shifts) == ("birds", "test", ("fog", "night"))


def test_what_a_policy_leaves_out_is_the_usual(file: Path) -> None:
    policy = policies_of(file, '[model."my birds"]\ntask = "arrays"\n').of("my birds")
    assert (policy.alias, policy.candidate, policy.split, policy.margin) == (
        "champion",
        "candidate",
        "test",
        -0.5,
    )
    assert policy.max_latency is policy.max_size is None


def test_all_faults_of_all_tables_are_told_at_once_and_where(file: Path) -> None:
    told = faults_of(
        file,
        """
        models = 1
        [model.birds]
        tsk = "arrays"
        [model.cats]
        task = "arrays"
        alias = "v1"
        max_size = -1
        shifts = ["test"]
        [model.dogs]
        task = "arrays"
        margin = "a little"
        alias = "x"
        candidate = "x"
        [model.eels]
        task = 3
        """,
    )
    assert told == (
        "models is unknown: did you mean model?",
        "model 'birds': tsk is unknown: did you mean task?",
        "model 'birds': task is missing",
        "model 'cats': alias must be letters, digits, - or _, and none of MLflow's own, got 'v1'",
        "model 'cats': max_size must be a positive number, got -1.0",
        "model 'cats': split and shifts must be different splits, got test, test",
        "model 'dogs': alias and candidate must differ, got 'x' twice: whoever asks moves it",
        "model 'dogs': margin must be a number, or a percentage such as '-1%', got 'a little'",
        "model 'eels': task must be a text, got 3",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no policy"),
        ("model = 3", "there is no policy"),
        ("[model]\nbirds = 3", "a policy is a table: [model.birds]"),
    ],
)
def test_a_file_without_a_policy_is_told(file: Path, text: str, why: str) -> None:
    assert why in faults_of(file, text)[0]


def test_a_file_that_is_no_toml_is_told_with_the_line(file: Path) -> None:
    with pytest.raises(BadRequest, match=r"are no TOML: .*line 1"):
        policies_of(file, '[model.birds\ntask="arrays"')


def test_a_model_without_a_policy_is_told_with_the_one_that_may_be_meant(file: Path) -> None:
    with pytest.raises(BadRequest, match=r"no policy for the model 'bird': .* did you mean birds"):
        policies_of(file, EXAMPLE).of("bird")


def test_whatever_is_asked_is_in_the_policys_name(file: Path) -> None:
    policy = policies_of(file, EXAMPLE).of("birds")
    changed = [EXAMPLE.replace("0.5", "0.6"), EXAMPLE.replace("night", "day"), EXAMPLE.replace("1.2", "1.3")]
    others = {policies_of(file, text).of("birds").digest for text in changed}
    assert len({policy.digest, *others}) == 4
    assert policies_of(file, EXAMPLE.replace("# the alias that moves", "# an alias")).of("birds") == policy


def test_the_alias_that_new_soups_get_cannot_be_guarded_but_may_ask(file: Path) -> None:
    head = '[model.birds]\ntask = "arrays"\n'
    (fault,) = faults_of(file, f'{head}alias = "challenger"\n')
    assert "which new soups get without the gate" in fault
    assert policies_of(file, f'{head}candidate = "challenger"\n').of("birds").candidate == "challenger"


BIRDS = '[model.birds]\ntask = "arrays"\n'


def test_keys_of_signatures_are_one_file_or_a_list(file: Path, tmp_path: Path) -> None:
    one, two = plain_key(tmp_path / "one.pem", "1"), plain_key(tmp_path / "two.pem", "2")
    assert policies_of(file, BIRDS).of("birds").keys == ()
    assert policies_of(file, f'{BIRDS}signed_by = "{one}"').of("birds").keys == (one,)
    both = policies_of(file, f'{BIRDS}signed_by = ["{one}", "{two}"]').of("birds")
    assert both.keys == (one, two)
    assert both.digest != policies_of(file, BIRDS).of("birds").digest


def test_keys_of_signatures_that_are_none_are_told_when_the_file_is_read(file: Path, tmp_path: Path) -> None:
    private, other, folder = tmp_path / "private.pem", tmp_path / "other.txt", tmp_path / "folder"
    private.write_text("-----BEGIN EC PRIVATE KEY-----\nsecret\n")
    other.write_text("no key")
    folder.mkdir()
    makes_its_public_one = f"openssl ec -in {private} -pubout -out public.pem makes its public one"
    missing = tmp_path / "missing.pem"
    text = f"""
        [model.birds]
        task = "arrays"
        signed_by = ["{private}", "{other}", "{folder}", "{missing}"]
        [model.cats]
        task = "arrays"
        signed_by = "public.pem"
        [model.dogs]
        task = "arrays"
        signed_by = []
        """
    assert faults_of(file, text) == (
        f"model 'birds': signed_by: {private} is a private key: {makes_its_public_one}",
        f"model 'birds': signed_by: {other} holds no public key in PEM",
        f"model 'birds': signed_by: {folder} is no regular file",
        f"model 'birds': signed_by: {missing} is not there",
        "model 'cats': signed_by must name files by their whole path, got 'public.pem': workers read it",
        "model 'dogs': signed_by names no key: name one, or leave it out where none is needed",
    )


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["max_latency", "max_size"])
def test_a_limit_is_a_positive_number_that_can_be_met_and_missed(name: str, limit: float) -> None:
    with pytest.raises(BadRequest, match=f"{name} must be a positive number"):
        Policy(task="tiny", **{name: limit})  # type: ignore[arg-type]  # of the test's own
