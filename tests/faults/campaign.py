"""Do to small real runs what machines do to them, let them go on, and count what is lost.

    python tests/faults/campaign.py FOLDER --seed 1 [--cases kill,corrupt] [--scale 0.02]

Writes FOLDER/faults.csv, one line a case: how often it was tried, how many runs were lost, how many ended
with other bits than undisturbed ones, how many endings were unclear (other than one message and a documented
exit code), the exit codes, and the worst of the messages. Full disks and read-only folders take root on
Linux.
"""

import argparse
import csv
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from tests.faults import corruption, disk, kills, machine, read_only
from tests.faults.lives import Tally

# Each with the number of tries of a full campaign.
CASES = {
    "kill": (kills.campaign, 1000),
    "corrupt": (corruption.campaign, 1000),
    "disk": (disk.full_disk, 80),
    "read_only": (read_only.campaign, 66),
    "processes": (machine.two_processes, 100),
    "clock": (machine.jumping_clock, 50),
    "files": (machine.full_table, 120),
}
COLUMNS = ("case", "tries", "lost", "unequal", "unclear", "exit codes", "details", "worst message")


def row_of(tally: Tally, folder: str) -> list[str]:
    """Return a line of the table, with the folder of the campaign cut short."""
    counts = [
        ", ".join(f"{key}: {counter[key]}" for key in sorted(counter))
        for counter in (tally.codes, tally.details)
    ]
    numbers = (tally.case, tally.tries, tally.lost, tally.unequal, tally.unclear)
    return [*map(str, numbers), *counts, tally.worst.replace(folder, "...")]


def main() -> int:
    """Run the cases that are asked for; return 1 if anything was lost, unequal or unclear."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of a full campaign")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faults = []
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder} is not empty; name a new folder")
    with open(arguments.folder / "faults.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for name in arguments.cases.split(","):
            campaign, tries = CASES[name]
            tally = campaign(arguments.folder / name, max(1, round(arguments.scale * tries)), arguments.seed)
            row = row_of(tally, str(arguments.folder / name))
            table.writerow(row)
            file.flush()
            lines = (f"{column}: {cell}" for column, cell in zip(COLUMNS, row, strict=True))
            print(*lines, sep="\n  ", flush=True)
            print(*tally.faults, sep="\n", file=sys.stderr, flush=True)
            faults += tally.faults
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
