"""Made-up rows of the table of the plan's runs."""

from collections.abc import Sequence

from sam.report.claims import CLAIMS, FIRST_SEED, Claim
from sam.report.plan_runs import COLUMNS, CONFIRMATORY, SEARCH, SEARCH_SEEDS, SETTING


def row(claim: Claim, method: str, searched: float, seed: int, error: float, **others: str) -> dict[str, str]:
    """Return the row of a run of a block; a seed below 100 is a search run.

    Args:
        claim: A claim of the block.
        method: "sgd" or "sam".
        searched: Learning rate of SGD, or rho of SAM.
        seed: The seed.
        error: The error, in percent.
        others: More columns, such as epochs.
    """
    lr, rho = (searched, "") if method == "sgd" else (0.1, f"{searched:g}")
    values = {
        **SETTING,
        **(CONFIRMATORY if seed >= FIRST_SEED else SEARCH),
        "dataset.name": claim.dataset,
        "dataset.label_noise": f"{claim.label_noise:g}",
        "optimizer.name": method,
        "optimizer.lr": f"{lr:g}",
        "optimizer.rho": rho,
        "epochs": "20",
        "seed": str(seed),
        "status": "complete",
        "test_error_pct": str(error),
        **others,
    }
    values["identity"] = "-".join([claim.dataset, method, values["epochs"], str(searched)])
    return dict.fromkeys(COLUMNS, "") | values


def search_rows(claim: Claim, twice: float = 45.0) -> list[dict[str, str]]:
    """Return the search of a block that chooses learning rate 0.1 with error 44 and the largest rho.

    Args:
        claim: A claim of the block.
        twice: Error of SGD with twice the epochs and learning rate 0.2.
    """
    rows = []
    for seed in SEARCH_SEEDS:
        for lr, error, error_of_twice in ((0.05, 46.0, 47.0), (0.1, 44.0, 47.0), (0.2, 45.0, twice)):
            rows.append(row(claim, "sgd", lr, seed, error))
            rows.append(row(claim, "sgd", lr, seed, error_of_twice, epochs="40"))
        rows += [row(claim, "sam", rho, seed, 44.0 - rho) for rho in claim.rhos]
    return rows


def run_rows(claim: Claim, differences: Sequence[float]) -> list[dict[str, str]]:
    """Return the confirmatory runs of SGD and SAM whose errors differ by these points, from seed 100 on."""
    rows = []
    for seed, difference in enumerate(differences, start=FIRST_SEED):
        rows.append(row(claim, "sgd", 0.1, seed, 44.0, lambda_max="8.0"))
        rows.append(
            row(claim, "sam", claim.rhos[-1], seed, 44.0 + difference, lambda_max=str(2.0 + seed / 100))
        )
    return rows


def all_rows() -> list[dict[str, str]]:
    """Return the runs of all blocks: T1 and T4 hold, T2 does not, T3 is open."""
    first, second, third, _ = CLAIMS
    return [
        *search_rows(first),
        *run_rows(first, [-2.0 - 0.1 * seed for seed in range(12)]),
        *search_rows(second),
        *run_rows(second, [0.1 if seed % 2 else -0.1 for seed in range(10)]),
        *search_rows(third),
        *run_rows(third, [0.9 if seed % 2 else -1.1 for seed in range(10)]),
    ]
