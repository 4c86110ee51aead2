"""The deployments that come with Stockpot: their names, and the file that tells Prefect of them."""

from pathlib import Path
from shlex import quote

SOUP = "soup-sweep/soup"
HELP = "help-sweep/help-sweep"
SCAN = "scan-sweeps/scan"
WATCH = "watch-models/watch-models"
GATE = "gate-versions/gate"
APPROVE = "approve-version/approve"


def deployments_file() -> Path:
    """`prefect.yaml`: beside this module where a wheel was installed, else in the source tree."""
    here = Path(__file__).parent
    shipped = here / "prefect.yaml"
    return shipped if shipped.exists() else here.parent / "prefect.yaml"


def deploy_command() -> str:
    """What makes or updates the deployments on the Prefect server that is configured."""
    return f"prefect --no-prompt deploy --all --prefect-file {quote(str(deployments_file()))}"
