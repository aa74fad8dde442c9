"""GOPO, its claims tried small: two levels, whole dialogues and hard rules, in a shop with hidden customers.

ToyShop with tiny transformers of 0.1 M parameters, which read and write its words.  For every seed a warm-up imitates
an expert who plans at random in 30 of 100 turns; from it each arm trains on as many dialogues:

* GOPO: planner and responder, hard masks, the reward of whole dialogues, weights that move from the expert to TSE;
* one thing changed: the planner paid per turn; weights that stay; no ESNDCG; a responder paid for its replies alone;
  no masks; no masks and a penalty of 0.1 for each violation;
* one flat policy that names a skill and words it in one turn, from a warm-up of its own (PPO);
* offline: preferences between dialogues of the expert's, with more random plans;
* a memory of what went best in states like this one, with scripted replies, which cannot be wrong.

All serve 96 new customers, greedily and at temperature 1.  A score that can rise through broken rules says nothing
alone: violations and the compliant TSE stand beside it, and the best that plans can come to, which is found by trying
all.  The tables count only where in every seed GOPO covers half of what lay between its first rewards and the best.

    python scripts/reproduce/gopo.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce-gopo/gopo.json`` and prints the tables; finished runs are found again, and ``--quick`` takes the
first seed alone.

Settings were chosen on seed 0: with a learning rate of 1e-3 instead of 3e-3 GOPO covered half of that gap, not three
quarters; offline, two settings were tried, and the one with more random plans (half of the turns) and larger batches
gained nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.reproduce.arms import arguments, each_seed, publish
from scripts.reproduce.gopo_runs import run_seed
from scripts.reproduce.gopo_tables import report


def main() -> None:
    options = arguments(str(__doc__), "reproduce-gopo").parse_args()
    folders = each_seed(run_seed, options)
    publish("gopo.json", {"service": report(folders)}, folders, options.root)


if __name__ == "__main__":
    main()
